"""A sigma-serve, started here or running already, and requests to it."""

import contextlib
import json
import os
import re
import subprocess
import threading
import time
from pathlib import Path

import requests

BINARY = Path(__file__).resolve().parents[2] / ".build/release/sigma-serve"


class ServerError(Exception):
    pass


class ContextExceeded(ServerError):
    """A prompt has no room."""


class Server:
    """How to reach a server. Any thread may ask."""

    def __init__(self, url, key=None):
        self.url = url.rstrip("/")
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.threads = threading.local()
        model = self.get("/v1/models")["data"][0]
        self.model, self.context = model["id"], model["max_model_len"]

    @property
    def session(self):
        if not hasattr(self.threads, "session"):
            self.threads.session = requests.Session()
        return self.threads.session

    def get(self, path):
        return self.checked(self.session.get(self.url + path, headers=self.headers, timeout=60))

    def post(self, path, body):
        """The answer, however long it takes. Waits where the server is busy."""
        while True:
            response = self.session.post(self.url + path, json=body, headers=self.headers, timeout=(30, None))
            if response.status_code not in (429, 503):
                return self.checked(response)
            time.sleep(min(60, float(response.headers.get("retry-after", 1))))

    @staticmethod
    def checked(response):
        if response.ok:
            return response.json()
        try:
            error = response.json()["error"]
        except (ValueError, KeyError):
            error = {"message": response.text[:200], "code": response.status_code}
        kind = ContextExceeded if error.get("code") == "context_length_exceeded" else ServerError
        raise kind(f"{response.status_code}: {error.get('message')}")


@contextlib.contextmanager
def serving(model, binary=None, options=()):
    """A server of its own for this model file, on a free port."""
    environment = {name: value for name, value in os.environ.items() if name not in ("SIGMA_API_KEY", "SIGMA_MODEL")}
    process = subprocess.Popen(
        [str(binary or BINARY), "--model", str(model), "--port", "0", "--log-level", "error", *options],
        stdout=subprocess.PIPE, text=True, env=environment)
    try:
        line = process.stdout.readline()
        found = re.fullmatch(r"listening on (http://\S+)\n", line)
        if not found:
            raise ServerError(f"sigma-serve ended with code {process.wait()}")
        yield Server(found[1])
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def fingerprint(server, model=None, options=()):
    """What answers depend on, so that a run is not resumed with others: the model's name and context, its file's size and 64 mebibytes from all over
    it, the server's options and the instruction set."""
    import hashlib

    found = {"model": server.model, "context": server.context, "options": list(options)}
    if "SIGMA_INSTRUCTION_SET" in os.environ:
        found["instruction_set"] = os.environ["SIGMA_INSTRUCTION_SET"]
    if model:
        found["bytes"], digest = os.path.getsize(model), hashlib.sha256()
        with open(model, "rb") as file:
            for part in range(64):
                file.seek(part * found["bytes"] // 64)
                digest.update(file.read(1 << 20))
        found["file"] = digest.hexdigest()
    return found
