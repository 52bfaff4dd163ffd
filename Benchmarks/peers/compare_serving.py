"""Generated tokens per second and time to first token of sigma-serve and llama-server on the same weights, for streams side by side.

A stream has random prompt tokens, others in every round, and generates without a stop. Rounds of both servers are in turn; each server has a first
round that is not counted. Before a server starts, its model is read once, so that neither waits for the disk.

    cmake --build build --target llama-server          # in llama.cpp's sources, for example those of llama-cpp-python
    python add_tokenizer.py qwen3moe.gguf qwen3moe-tokens.gguf
    python compare_serving.py sigma.gguf qwen3moe-tokens.gguf results --llama-server build/bin/llama-server

Writes FOLDER/serving.json and serving.md; `report.py --serving FOLDER/serving.json` takes them into the documentation.
"""

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Tests/ServerCheck"))

import report  # noqa: E402
from serving import Server, request_bytes  # noqa: E402


class Sigma:
    name = "sigma-serve"

    def __init__(self, model, arguments):
        self.server = Server(model, "--threads", arguments.threads, "--backend", "cpu")
        self.port, self.path = self.server.port, "/v1/completions"

    def body(self, prompt, answer):
        return {"prompt": prompt, "max_tokens": answer, "temperature": 0.6, "seed": 1, "stream": True,
                "stream_options": {"include_usage": True}}

    @staticmethod
    def count(events):
        return next(e["usage"]["completion_tokens"] for e in reversed(events) if e.get("usage"))

    @staticmethod
    def has_token(event):
        return bool(event["choices"])

    def stop(self):
        self.server.stop()


class Llama:
    name = "llama-server"

    def __init__(self, model, arguments):
        self.port, self.path = arguments.llama_port, "/completion"
        self.process = subprocess.Popen(
            [arguments.llama_server, "-m", str(model), "-t", str(arguments.threads), "-np", str(max(arguments.streams)), "-c",
             str((arguments.prompt + arguments.answer + 64) * max(arguments.streams)), "-fa", "on", "--port", str(self.port), "--no-warmup"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(1200):
            try:
                if urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).status == 200:
                    return
            except OSError:
                if self.process.poll() is not None:
                    raise RuntimeError(f"llama-server ended with {self.process.returncode}") from None
            time.sleep(0.5)
        raise RuntimeError("llama-server does not get ready")

    def body(self, prompt, answer):
        return {"prompt": prompt, "n_predict": answer, "temperature": 0.6, "seed": 1, "stream": True, "ignore_eos": True,
                "cache_prompt": False}

    @staticmethod
    def count(events):
        return events[-1]["timings"]["predicted_n"] if "timings" in events[-1] else len(events) - 1

    @staticmethod
    def has_token(event):
        return True

    def stop(self):
        self.process.terminate()
        self.process.wait()


async def one(server, prompt, answer):
    """Tokens, and seconds to the first and to the last."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 24)
    begin = time.monotonic()
    writer.write(request_bytes("POST", server.path, server.body(prompt, answer)))
    await writer.drain()
    first, events = None, []
    while line := await reader.readline():
        if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
            continue
        events.append(json.loads(line[6:]))
        if "error" in events[-1]:
            raise RuntimeError(events[-1])
        if first is None and server.has_token(events[-1]):
            first = time.monotonic() - begin
    writer.close()
    return server.count(events), first, time.monotonic() - begin


async def round_of(server, streams, arguments, generator):
    prompts = [[generator.randrange(300, arguments.vocabulary) for _ in range(arguments.prompt)] for _ in range(streams)]
    begin = time.monotonic()
    results = await asyncio.gather(*(one(server, prompt, arguments.answer) for prompt in prompts))
    seconds = time.monotonic() - begin
    return {"tps": sum(count for count, _, _ in results) / seconds, "first": statistics.median(first for _, first, _ in results)}


def measure(make, model, arguments, generator, streams):
    subprocess.run(["cat", str(model)], stdout=subprocess.DEVNULL, check=True)
    server = make(model, arguments)
    try:
        asyncio.run(round_of(server, 1, arguments, generator))
        return {count: asyncio.run(round_of(server, count, arguments, generator)) for count in streams}
    finally:
        server.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("llama_model")
    parser.add_argument("folder")
    parser.add_argument("--llama-server", required=True)
    parser.add_argument("--llama-port", type=int, default=18080)
    parser.add_argument("--streams", type=lambda text: [int(part) for part in text.split(",")], default=[1, 4, 8, 16])
    parser.add_argument("--prompt", type=int, default=200)
    parser.add_argument("--answer", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=200_000)
    arguments = parser.parse_args()
    folder = Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    generator = random.Random(1)
    rounds = []
    for _ in range(arguments.rounds):
        ours = measure(Sigma, arguments.model, arguments, generator, arguments.streams)
        theirs = measure(Llama, arguments.llama_model, arguments, generator, arguments.streams)
        rounds.append({"ours": ours, "theirs": theirs})
        print(json.dumps(rounds[-1]), flush=True)
    result = {"machine": report.machine(), "date": report.today(), "threads": arguments.threads, "prompt": arguments.prompt, "answer": arguments.answer,
              "rounds": rounds}
    (folder / "serving.json").write_text(json.dumps(result, indent=1) + "\n")
    table = report.serving_table(json.loads(json.dumps(result)))
    (folder / "serving.md").write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
