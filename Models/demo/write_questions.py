"""Writes `questions.jsonl`: held-out questions of every kind for `sigma-eval task`, one object a line, seeded.

    python Models/demo/write_questions.py [--count 500] [--digits 6]
"""

import argparse
import json
import random
from pathlib import Path

from kinds import KINDS
from tasks import is_held_out

HERE = Path(__file__).resolve().parent


def questions(name: str, count: int, digits: int) -> list[dict]:
    """Different held-out problems of one kind; fewer where a kind has not so many."""
    chosen, rng, seen = KINDS[name], random.Random(f"questions {name}"), set()
    rows = []
    for _ in range(200 * count):
        if len(rows) == count:
            break
        operands = chosen.draw(rng, digits)
        key = chosen.key(*operands)
        if not is_held_out(key) or key in seen:
            continue
        seen.add(key)
        problem = chosen.problem(rng, *operands)
        rows.append({"kind": name, "question": problem.question, "answer": problem.truth})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=500, help="of each kind (500)")
    parser.add_argument("--digits", type=int, default=6, help="of the longest numbers in sums (6)")
    arguments = parser.parse_args()
    with open(HERE / "questions.jsonl", "w") as file:
        for name in KINDS:
            if name == "repeating":
                continue  # an exercise
            for row in questions(name, arguments.count, arguments.digits):
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
