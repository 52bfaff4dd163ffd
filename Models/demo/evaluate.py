"""Exact-match accuracy of a checkpoint on held-out questions, with the reference implementation and greedy decoding.

    python Models/demo/evaluate.py [CHECKPOINT] [--count 200] [--digits 4] [--kinds addition subtraction] [--show 3]
"""

import argparse
import random
import sys
from collections import defaultdict
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "reference"))

from sigma_checkpoint import load_model
from sigma_reference import Sigma

from kinds import Problem
from tasks import SUMS, prompt, sample
from tokenizer import ChatTokenizer


def replies(model: Sigma, tokenizer: ChatTokenizer, problems: list[Problem], thinking: bool, limit: int = 400) -> list[str]:
    """What the model writes after each prompt; prompts of one length run together."""
    groups: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
    for i, problem in enumerate(problems):
        ids = tokenizer.encode_pieces(prompt(problem, thinking))
        groups[len(ids)].append((i, ids))
    texts = [""] * len(problems)
    for group in groups.values():
        made, _ = model.greedy(torch.tensor([ids for _, ids in group]), limit, tokenizer.stop)
        for (i, _), ids in zip(group, made):
            texts[i] = tokenizer.decode(ids)
    return texts


def answer_of(reply: str, thinking: bool) -> str:
    return reply.partition("</think>")[2] if thinking else reply


def accuracy(model: Sigma, tokenizer: ChatTokenizer, problems: list[Problem], thinking: bool) -> float:
    texts = replies(model, tokenizer, problems, thinking)
    return sum(answer_of(text, thinking) == p.truth for text, p in zip(texts, problems)) / len(problems)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, nargs="?", default=HERE / "checkpoint")
    parser.add_argument("--count", type=int, default=200, help="questions of each kind and length (200)")
    parser.add_argument("--digits", type=int, default=4)
    parser.add_argument("--kinds", nargs="+", default=list(SUMS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print N wrong replies of each row")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    model, tokenizer = load_model(arguments.checkpoint), ChatTokenizer(arguments.checkpoint)
    for kind in arguments.kinds:
        problems = [sample(random.Random(f"{arguments.seed} {kind} {i}"), (kind,), arguments.digits, held_out=True) for i in range(arguments.count)]
        for thinking in (True, False):
            texts = replies(model, tokenizer, problems, thinking)
            wrong = [(p, t) for p, t in zip(problems, texts) if answer_of(t, thinking) != p.truth]
            print(f"{kind:15} {'with' if thinking else 'without'} thinking: {1 - len(wrong) / len(problems):.1%} of {len(problems)}", flush=True)
            for problem, text in wrong[: arguments.show]:
                print(f"  {problem.question!r}\n  expected {problem.truth!r}, found {text!r}")


if __name__ == "__main__":
    main()
