"""Kills `sigma-run --batch` at random moments and starts it again: in the end each custom_id has one result, the one that a run which nobody
killed gives it.

    python check_killed_batches.py --model Models/demo.gguf [--run .build/release/sigma-run] [--kills 20] [--lines 600] [--seed N]
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def write_lines(path, count):
    """Questions with and without thinking, greedy and sampled; some lines are wrong, and get an error."""
    with open(path, "w", encoding="utf-8") as file:
        for number in range(count):
            body = {"messages": [{"role": "user", "content": f"What is {100 + number} + {7 * number}?"}],
                    "temperature": number % 3 * 0.6, "seed": number, "max_tokens": 40, "enable_thinking": number % 4 > 0}
            if number % 50 == 49:
                body["temperature"] = -1
            file.write(json.dumps({"custom_id": f"q{number}", "method": "POST", "url": "/v1/chat/completions",
                                   "body": body}) + "\n")


def read_results(path, ends_whole):
    """Results by their custom_id. Fails if one is there twice, or if a line but the last is not whole."""
    text = path.read_bytes() if path.exists() else b""
    lines = text.split(b"\n")
    assert not ends_whole or lines[-1] == b"", "the last line has no end"
    results = {}
    for line in lines[:-1]:
        result = json.loads(line)
        assert result["custom_id"] not in results, f"{result['custom_id']} is there twice"
        body = result["response"]["body"]
        results[result["custom_id"]] = (result["response"]["status_code"], body.get("choices"), result["error"])
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--run", default=ROOT / ".build/release/sigma-run")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--lines", type=int, default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    moments = random.Random(options.seed)
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        lines, whole, output = (Path(folder) / name for name in ("lines.jsonl", "whole.jsonl", "results.jsonl"))
        write_lines(lines, options.lines)
        command = [options.run, "--model", options.model, "--batch", lines]
        begin = time.monotonic()
        subprocess.run([*command, "--output", whole], check=True, stderr=subprocess.DEVNULL)
        seconds = time.monotonic() - begin
        expected = read_results(whole, True)
        assert len(expected) == options.lines

        kills = rounds = partial = 0
        while kills < options.kills:
            process = subprocess.Popen([*command, "--output", output], stderr=subprocess.DEVNULL)
            try:
                code = process.wait(timeout=moments.uniform(0, 2.5 * seconds / options.kills))
                assert code == 0, f"ended with {code}"
                assert read_results(output, True) == expected
                rounds += 1
                output.unlink()
                continue
            except subprocess.TimeoutExpired:
                pass
            process.send_signal(signal.SIGTERM if moments.random() < 0.25 else signal.SIGKILL)
            process.wait()
            kills += 1
            done = read_results(output, False)
            partial += output.exists() and not output.read_bytes().endswith(b"\n") and output.stat().st_size > 0
            assert all(expected[name] == result for name, result in done.items()), "another answer"
            print(f"killed {kills} times, {len(done)} of {options.lines} results", flush=True)
        subprocess.run([*command, "--output", output], check=True, stderr=subprocess.DEVNULL)
        assert read_results(output, True) == expected, "other results"
    print(f"{options.lines} lines, killed {kills} times ({partial} of them within a line), {rounds + 1} whole runs: "
          "each custom_id once, and the answer of a run that nobody killed")


if __name__ == "__main__":
    sys.exit(main())
