"""Holds the ways to a log-probability to each other, to the last digit: sigma-eval loglikelihood, /v1/completions with echo, sigma-run --logprobs.

    compare_scores.py --model sigma.gguf [--bin .build/release] [--questions 12]

Each is asked for the same questions: sigma-eval with and without shared prefixes, and on one thread; the server cold, and again from kept prefixes;
sigma-run once for each text, which prints eight decimals. For models of quantized weights: those in float may differ in last bits.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))


def questions(count, seed=5):
    """Four-choice questions with contexts of about 20 to 200 words; neighbours share what stands before the question."""
    source = random.Random(seed)
    words = ("the and of what which number is was how many people river stone light city old new seven nine house road green blue water time "
             "because under between before after").split()

    def text(length):
        return " ".join(source.choice(words) for _ in range(length))

    rows, shared = [], ""
    for index in range(count):
        if index % 4 == 0:
            shared = text(source.randint(10, 120))
        context = f"{shared}\nQuestion: {text(source.randint(8, 60))}?\nAnswer:"
        choices = [f" {text(source.randint(1, 8))}" for _ in range(4)]
        # Two that begin alike, and one that is the other's beginning.
        choices[1] = choices[0] + " " + text(2)
        rows.append({"id": index, "context": context, "choices": choices, "answer": index % 4})
    return rows


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def by_command(options, path, *more):
    result = subprocess.run([options.bin / "sigma-eval", "loglikelihood", "--model", options.model, "--json", *more, path],
                            check=True, capture_output=True, text=True)
    return [[choice["token_logprobs"] for choice in json.loads(line)["choices"]] for line in result.stdout.splitlines()]


def by_server(server, rows):
    """The choice's tokens are those of the whole text behind the context's."""
    def tokens(text):
        return server.post("/tokenize", {"prompt": text, "add_special_tokens": True})["tokens"]

    found = []
    for row in rows:
        context = tokens(row["context"])
        texts = [tokens(row["context"] + choice) for choice in row["choices"]]
        answer = server.post("/v1/completions", {"prompt": texts, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1})
        scores = sorted(answer["choices"], key=lambda choice: choice["index"])
        found.append([score["logprobs"]["token_logprobs"][len(context):-1] for score in scores])
        row["tokens"], row["context_count"] = texts, len(context)
    return found


def by_run(options, row, index):
    result = subprocess.run([options.bin / "sigma-run", "--model", options.model, "--json", "--max-tokens", "0", "--logprobs", "1", "--tokens",
                             ",".join(map(str, row["tokens"][index]))], check=True, capture_output=True, text=True)
    event = next(event for event in map(json.loads, result.stdout.splitlines()) if event["event"] == "prompt-logprobs")
    return [position["logprob"] for position in event["positions"][row["context_count"] - 1:-1]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--bin", type=Path, default=ROOT / ".build/release")
    parser.add_argument("--eval-bin", type=Path, help="where another sigma-eval is")
    parser.add_argument("--questions", type=int, default=12)
    options = parser.parse_args()
    from server import serving

    rows = questions(options.questions)
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder, "questions.jsonl"), rows)
        with serving(options.model, options.bin / "sigma-serve") as server:
            ways = {"server, cold": by_server(server, rows), "server, from kept prefixes": by_server(server, rows)}
        given = argparse.Namespace(**{**vars(options), "bin": options.eval_bin or options.bin})
        ways["sigma-eval"] = by_command(given, path)
        ways["sigma-eval, nothing shared"] = by_command(given, path, "--no-sharing")
        ways["sigma-eval, one thread"] = by_command(given, path, "--threads", "1")
        ids = write(Path(folder, "ids.jsonl"), [{"context": row["tokens"][0][:row["context_count"]],
                                                 "choices": [tokens[row["context_count"]:] for tokens in row["tokens"]]} for row in rows])
        ways["sigma-eval, token ids"] = by_command(given, ids)
    expected = ways.pop("server, cold")
    count = sum(len(choice) for row in expected for choice in row)
    failed = False
    for name, found in ways.items():
        equal = found == expected
        failed |= not equal
        print(f"{name}: {'the same' if equal else 'DIFFERS'} ({count} log-probabilities, as numbers)")
    rounded = [[[float(f"{value:.8f}") for value in by_run(options, row, index)] for index in range(4)] for row in rows]
    printed = [[[float(f"{value:.8f}") for value in choice] for choice in row] for row in expected]
    print(f"sigma-run: {'the same' if rounded == printed else 'DIFFERS'} (its eight decimals)")
    return 1 if failed or rounded != printed else 0


if __name__ == "__main__":
    sys.exit(main())
