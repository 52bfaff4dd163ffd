"""A batch of prompts side by side (`sigma-run --batch`) against the same prompts one after the other (a server that gets one at a time), in turn.

    python batch.py --model MODEL.gguf --prompts 200 --answer 256
    python batch.py --model MODEL.gguf --prompts 200 --answer 256 --memory 3GiB
    python batch.py --model MODEL.gguf --prompts 200 --answer 16 --memory 3GiB

Prompts have 100 to 1,000 random tokens, the same in every run; an answer has all of its tokens, for the stop tokens are made unlikely. Times are
from the first request to the last answer, without the loading. --bin says where the commands are, --more hands further options to both.
"""

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def bodies(options):
    """The prompts, from the shortest to the longest."""
    numbers = random.Random(1)
    for index in range(options.prompts):
        length = round(100 + 900 * (index + 0.5) / options.prompts)
        yield {"prompt": [numbers.randrange(100_000) for _ in range(length)], "max_tokens": options.answer,
               "temperature": 0.6, "seed": index, "logit_bias": {str(token): -100 for token in options.stop}}


def check(usage, body, options):
    assert usage["completion_tokens"] == options.answer, f"an answer ended early: {usage}"
    assert usage["prompt_tokens"] == len(body["prompt"])


def one_by_one(requests, common, options):
    server = subprocess.Popen([options.bin / "sigma-serve", "--port", "0", "--log-level", "error", "--parallel", "1", *common],
                              stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        url = re.fullmatch(r"listening on (http://\S+)\n", line)[1]
        begin = time.monotonic()
        for body in requests:
            request = urllib.request.Request(
                url + "/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"})
            with urllib.request.urlopen(request, timeout=3600) as reply:
                check(json.load(reply)["usage"], body, options)
        return time.monotonic() - begin
    finally:
        server.terminate()
        server.wait()


def as_batch(requests, common, options):
    with tempfile.TemporaryDirectory() as folder:
        lines, output = Path(folder) / "lines.jsonl", Path(folder) / "results.jsonl"
        with open(lines, "w", encoding="utf-8") as file:
            for index, body in enumerate(requests):
                file.write(json.dumps({"custom_id": str(index), "method": "POST", "url": "/v1/completions", "body": body}) + "\n")
        begin = time.monotonic()
        run = subprocess.run([options.bin / "sigma-run", "--batch", lines, "--output", output, *common],
                             stderr=subprocess.PIPE, text=True, check=True)
        seconds = time.monotonic() - begin
        with open(output, encoding="utf-8") as file:
            for result in map(json.loads, file):
                check(result["response"]["body"]["usage"], requests[int(result["custom_id"])], options)
        print(f"  {run.stderr.strip().splitlines()[-1]}; with loading {seconds:.1f} s", flush=True)
        # Whole seconds, without the loading.
        return float(re.search(r"in (\d+) s$", run.stderr.strip())[1]) or seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--bin", type=Path, default=ROOT / ".build/release")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--answer", type=int, default=256, help="tokens")
    parser.add_argument("--memory")
    parser.add_argument("--stop", type=int, nargs="*", default=[199999, 200003], help="the model's stop tokens")
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="last: options of both commands")
    options = parser.parse_args()
    common = ["--model", options.model, *(["--memory", options.memory] if options.memory else []), *options.more]
    requests = list(bodies(options))
    random.Random(2).shuffle(requests)
    prompt = sum(len(body["prompt"]) for body in requests)
    tokens = options.prompts * options.answer
    if not options.memory:
        # What is mapped comes from memory in both.
        with open(options.model, "rb") as file:
            while file.read(1 << 24):
                pass
    print(f"{options.prompts} prompts of {prompt} tokens together, {tokens} tokens of answers", flush=True)
    ratios = []
    for _ in range(options.repetitions):
        together = as_batch(requests, common, options)
        alone = one_by_one(requests, common, options)
        ratios.append(alone / together)
        print(f"  side by side {together:.0f} s ({tokens / together:.1f} answer tokens/s), one after the other {alone:.0f} s "
              f"({tokens / alone:.1f}): {ratios[-1]:.2f} times", flush=True)
    print(f"side by side is {statistics.median(ratios):.2f} times as fast")


if __name__ == "__main__":
    sys.exit(main())
