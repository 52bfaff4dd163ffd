"""Starts sigma-serve and talks to it with bytes of one's own choice: what the checks of this folder share. Python's library alone."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Server:
    """A server of its own, on a free port."""

    def __init__(self, model, *options, binary=None, environment=None):
        binary = binary or ROOT / ".build/release/sigma-serve"
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [str(binary), "--model", str(model), "--port", "0", "--log-level", "error", *map(str, options)],
            stdout=subprocess.PIPE, stderr=self.errors, text=True, env={**os.environ, **(environment or {})})
        line = self.process.stdout.readline()
        match = re.fullmatch(r"listening on http://127\.0\.0\.1:(\d+)\n", line)
        if not match:
            raise RuntimeError(f"sigma-serve says {line!r}, exit code {self.process.wait()}: {self.said()}")
        self.port = int(match[1])

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def said(self):
        """What it wrote to standard error."""
        self.errors.seek(0)
        return self.errors.read()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def resident(self):
        """Bytes of memory that the process holds and no file backs."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(re.search(r"RssAnon:\s+(\d+)", status)[1])


@contextlib.contextmanager
def serving(model, *options, **more):
    """A server beside the body, which it outlives: it ends when it is asked to, with 0."""
    server = Server(model, *options, **more)
    try:
        yield server
        assert server.process.poll() is None, f"sigma-serve ended with {server.process.returncode}: {server.said()}"
        code = server.stop()
        assert code == 0, f"asked to end, sigma-serve ended with {code}: {server.said()}"
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


def request_bytes(method, path, body=None, headers=()):
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", "connection: close", *headers]
    data = b""
    if body is not None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines += ["content-type: application/json", f"content-length: {len(data)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


async def send(port, method, path, body=None, headers=()):
    """Sends a request and reads the reply to its end. Returns status, headers and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    try:
        writer.write(request_bytes(method, path, body, headers))
        await writer.drain()
        return split(await reader.read())
    finally:
        writer.close()


def split(reply):
    head, _, body = reply.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    status = int(lines[0].split(" ")[1])
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if headers.get("transfer-encoding") == "chunked":
        body = joined(body)
    return status, headers, body


def joined(body):
    parts = []
    while body:
        size, _, body = body.partition(b"\r\n")
        count = int(size, 16)
        if count == 0:
            break
        parts.append(body[:count])
        body = body[count + 2:]
    return b"".join(parts)


async def stream(port, path, body, until=None):
    """The data of a stream's events with the moments at which they came; left after `until` of them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    events = []
    try:
        writer.write(request_bytes("POST", path, {**body, "stream": True}))
        await writer.drain()
        while True:
            line = await reader.readline()
            if not line:
                return events
            if line.startswith(b"data: "):
                events.append((time.monotonic(), line[6:].strip().decode()))
                if events[-1][1] == "[DONE]" or (until is not None and len(events) >= until):
                    return events
    finally:
        writer.close()


async def metrics(port):
    _, _, body = await send(port, "GET", "/metrics")
    values = {}
    for line in body.decode().splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            values[name] = float(value)
    return values


async def idle(port, seconds=30):
    """Waits until the engine has no work. Returns how long that took."""
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        values = await metrics(port)
        if values.get("sigma_engine_work") == 0 and values.get("vllm:num_requests_running") == 0:
            return time.monotonic() - begin
        await asyncio.sleep(0.01)
    raise RuntimeError("the engine still works")


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]
