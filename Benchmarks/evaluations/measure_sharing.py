"""What sharing of prefixes saves: four-choice questions with contexts of 50 to 300 tokens, each alone, by sigma-eval loglikelihood.

    measure_sharing.py --model sigma.gguf [--bin .build/release] [--questions 24] [--repetitions 3]

Runs with and without sharing take turns, and both must print the same numbers. Prints the seconds of each, without the time to load, and the ratio of
the medians. Exit code 1 below 2.5 times.
"""

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WANTED = 2.5


def questions(options):
    """Token ids, so that lengths are what they say: seeded, uniform over the ids that a text of letters has."""
    source = random.Random(11)
    text = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 the of and to in is that for on with"
    result = subprocess.run([options.bin / "sigma-eval", "tokenize", "-", "--model", options.model], input=text, capture_output=True, text=True, check=True)
    ids = sorted(set(json.loads(result.stdout)))

    def tokens(count):
        return [source.choice(ids) for _ in range(count)]

    return [{"context": tokens(source.randint(50, 300)), "choices": [tokens(source.randint(1, 12)) for _ in range(4)], "answer": 0}
            for _ in range(options.questions)]


def run(options, path, *more):
    result = subprocess.run([options.bin / "sigma-eval", "loglikelihood", "--model", options.model, *more, path], capture_output=True, text=True, check=True)
    return result.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--bin", type=Path, default=ROOT / ".build/release")
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    times = {"shared": [], "apart": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "questions.jsonl")
        rows = questions(options)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        if run(options, path, "--json") != run(options, path, "--json", "--no-sharing"):
            print("the numbers differ")
            return 1
        for _ in range(options.repetitions):
            for name, more in [("shared", []), ("apart", ["--no-sharing"])]:
                table = run(options, path, *more)
                times[name].append(float(re.search(r"(?m)^seconds\s+(\S+)", table)[1]))
    lengths = [len(row["context"]) for row in rows]
    ratio = statistics.median(times["apart"]) / statistics.median(times["shared"])
    print(f"{len(rows)} questions of four choices, contexts of {min(lengths)} to {max(lengths)} tokens (mean {statistics.mean(lengths):.0f})")
    for name, values in times.items():
        print(f"{name}: {statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})")
    print(f"{ratio:.2f} times the speed of no sharing; wanted {WANTED}")
    return 0 if ratio >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
