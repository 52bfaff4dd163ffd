"""Has a model answer under schemas, at a temperature at which it would write no JSON of its own accord.

    python answers.py --run ../../.build/release/sigma-run --model MODEL.gguf CASES.jsonl[.gz] ANSWERS.jsonl
    python validate.py CASES.jsonl ANSWERS.jsonl

A line of ANSWERS: `name`, `text`, and `end`: complete, or cut by the limit of tokens. Schemas that are refused are left out.
"""

import argparse
import gzip
import json
import random
import subprocess
import sys


def answer(options, schema, seed):
    """The answer's text and how it ended; None where the schema is refused."""
    thinking = ["--thinking-budget", "16"] if seed % 2 else ["--no-think"]
    result = subprocess.run(
        [options.run, "--model", options.model, "--json-schema", json.dumps(schema), "--json", *thinking,
         "--temperature", str(options.temperature), "--top-k", "0" if seed % 3 else "20", "--top-p", "1",
         "--seed", str(seed), "--max-tokens", str(options.max_tokens), "--prompt", f"What is {seed} + {seed * 7}?"],
        capture_output=True, text=True, check=False)
    if result.returncode == 64:
        return None
    if result.returncode != 0:
        sys.exit(f"sigma-run ended with {result.returncode}: {result.stderr}")
    text = ""
    for line in result.stdout.splitlines():
        event = json.loads(line)
        if event.get("phase") == "answer":
            text += event["text"]
        if event["event"] == "done":
            return text, {"stop": "complete", "length": "cut"}[event["reason"]]
    sys.exit("sigma-run said nothing of the end")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="../../.build/release/sigma-run")
    parser.add_argument("--model", required=True)
    parser.add_argument("--schemas", type=int, default=100)
    parser.add_argument("--answers", type=int, default=10, help="for each schema")
    parser.add_argument("--temperature", type=float, default=1.5)
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0, help="which schemas are taken")
    parser.add_argument("cases")
    parser.add_argument("output")
    options = parser.parse_args()
    opener = gzip.open if options.cases.endswith(".gz") else open
    with opener(options.cases, "rt", encoding="utf-8") as file:
        cases = [json.loads(line) for line in file]
    random.Random(options.seed).shuffle(cases)
    taken = 0
    with open(options.output, "w", encoding="utf-8") as output:
        for case in cases:
            if taken == options.schemas:
                break
            for seed in range(1, options.answers + 1):
                result = answer(options, case["schema"], seed)
                if result is None:
                    break
                text, end = result
                output.write(json.dumps({"name": case["name"], "text": text, "end": end}) + "\n")
            else:
                taken += 1
    print(f"{taken} schemas, {options.answers} answers each")


if __name__ == "__main__":
    main()
