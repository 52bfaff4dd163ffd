"""Judges answers that constraint-benchmark or a model made, with the independent validator `jsonschema`.

    constraint-benchmark --sample ANSWERS SEED VOCABULARY.tiktoken CASES.jsonl ANSWERS.jsonl
    python answers.py --model MODEL.gguf CASES.jsonl ANSWERS.jsonl
    python validate.py CASES.jsonl ANSWERS.jsonl
"""

import gzip
import json
import sys

import jsonschema


def main(cases_path, answers_path):
    opener = gzip.open if cases_path.endswith(".gz") else open
    with opener(cases_path, "rt", encoding="utf-8") as file:
        schemas = {case["name"]: case["schema"] for case in map(json.loads, file)}
    counts = {"valid": 0, "cut": 0, "stuck": 0, "invalid": 0}
    validators = {}
    with open(answers_path, encoding="utf-8") as file:
        for answer in map(json.loads, file):
            if answer["end"] != "complete":
                counts[answer["end"]] += 1
                if answer["end"] == "stuck":
                    print("stuck:", answer["name"], answer["text"][-200:])
                continue
            name = answer["name"]
            if name not in validators:
                kind = jsonschema.validators.validator_for(schemas[name], default=jsonschema.Draft202012Validator)
                validators[name] = kind(schemas[name])
            try:
                error = jsonschema.exceptions.best_match(validators[name].iter_errors(json.loads(answer["text"])))
            except ValueError as problem:
                error = problem
            counts["invalid" if error else "valid"] += 1
            if error:
                print("invalid:", name, answer["text"][:300], "--", str(error)[:300])
    print(", ".join(f"{count} {name}" for name, count in counts.items()))
    return 1 if counts["invalid"] or counts["stuck"] else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
