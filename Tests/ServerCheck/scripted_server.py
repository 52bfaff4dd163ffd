"""A server in front of sigma-serve whose answers to /v1/responses a script decides: what a page does with any stream can be looked at."""

import http.client
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ScriptedServer:
    """Everything but /v1/responses comes from the server behind, its page and headers included."""

    def __init__(self, behind):
        self.behind = behind
        # What an answer is made of: texts of ("thinking" or "text", piece), "hold" (until `released`), "end", "cut", or an error's (status, message).
        self.script = []
        self.released = threading.Event()
        self.bodies = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                connection = http.client.HTTPConnection("127.0.0.1", owner.behind, timeout=30)
                connection.request("GET", self.path, headers={"host": "127.0.0.1", "authorization": self.headers.get("authorization", "")})
                reply = connection.getresponse()
                body = reply.read()
                self.send_response(reply.status)
                for name, value in reply.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):
                owner.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                try:
                    owner.answer(self)
                except (BrokenPipeError, ConnectionResetError):
                    pass
                self.close_connection = True

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    def answer(self, handler):
        first = self.script[0] if self.script else None
        if first and isinstance(first[0], int):
            body = json.dumps({"error": {"message": first[1], "type": "server_error", "code": None, "param": None}}).encode()
            handler.send_response(first[0])
            handler.send_header("content-type", "application/json")
            handler.send_header("content-length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)
            return
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream; charset=utf-8")
        handler.end_headers()

        def send(kind, **members):
            handler.wfile.write(f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode())
            handler.wfile.flush()

        send("response.created", response={})
        tokens = {"thinking": 0, "text": 0}
        for step in self.script:
            if step == "hold":
                self.released.wait(60)
            elif step in ("end", "cut"):
                send("response.completed" if step == "end" else "response.incomplete", response={"usage": {
                    "input_tokens": 120, "input_tokens_details": {"cached_tokens": 96}, "output_tokens": sum(tokens.values()),
                    "output_tokens_details": {"reasoning_tokens": tokens["thinking"]}}})
            else:
                kind, text = step
                tokens[kind] += 1
                send({"thinking": "response.reasoning_text.delta", "text": "response.output_text.delta"}[kind], delta=text)
