"""Draws questions for training or held out, and writes them in the chat formats of the paper's Table 5.

    python Models/demo/tasks.py --check             every worked answer against ordinary arithmetic; no held-out question in training
    python Models/demo/tasks.py --show 3 [KIND]     examples

The hash of a question's operands alone decides whether it is for training or held out, so that no wording of a held-out
question is ever trained on.
"""

import argparse
import hashlib
import random

from kinds import KINDS, Problem

THINKING_PROMPT = "Think before you answer."
SYSTEM_PROMPTS = ("You are a careful assistant.", "You are good at sums.", "Answer the question.", "Be brief and precise.")
HELD_OUT_SHARE = 0.05
SUMS = ("addition", "subtraction")

BOS, SYSTEM, USER, ASSISTANT, END = "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"


def is_held_out(key: str) -> bool:
    return hashlib.sha256(key.encode()).digest()[0] < HELD_OUT_SHARE * 256


def sample(rng: random.Random, names: tuple[str, ...] = SUMS, digits: int = 4, held_out: bool = False) -> Problem:
    """One problem of the named kinds, from the training part or from the held-out part."""
    while True:
        chosen = KINDS[rng.choice(names)]
        operands = chosen.draw(rng, digits)
        if is_held_out(chosen.key(*operands)) == held_out:
            return chosen.problem(rng, *operands)


def system_block(system: str, thinking: bool) -> list[str]:
    """The paper appends the thinking prompt to the system prompt; without any text there is no block."""
    text = " ".join(part for part in (system, THINKING_PROMPT if thinking else "") if part)
    return [SYSTEM, text, END] if text else []


def turn(problem: Problem, thinking: bool) -> tuple[list[str], list[str]]:
    """A question up to where the model takes over, and the model's part.

    `<think>` (and `<think></think>`) is a piece of its own, because the engine encodes it before the model goes on.
    """
    opening = "<think>" if thinking else "<think></think>"
    reply = f"{problem.thought}</think>{problem.answer}" if thinking else problem.answer
    return [USER, problem.question, END, ASSISTANT, opening], [reply, END]


def prompt(problem: Problem, thinking: bool, system: str = "") -> list[str]:
    return [BOS, *system_block(system, thinking), *turn(problem, thinking)[0]]


def conversation(problems: list[Problem], thinking: bool, system: str = "") -> list[tuple[str, bool]]:
    """Pieces of text, and whether the model has to learn to write them."""
    pieces = [(text, False) for text in (BOS, *system_block(system, thinking))]
    for problem in problems:
        asked, reply = turn(problem, thinking)
        pieces += [(text, False) for text in asked] + [(text, True) for text in reply]
    return pieces


def check(count: int = 3000, digits: int = 6):
    """Fails loudly where a worked answer is wrong or a question is both trained on and held out."""
    for name, chosen in KINDS.items():
        rng, keys, wordings = random.Random(name), {True: set(), False: set()}, set()
        for _ in range(count):
            operands = chosen.draw(rng, digits)
            key = chosen.key(*operands)
            problem = chosen.problem(rng, *operands)
            assert problem.answer == problem.truth, f"{name}: {problem}"
            assert problem.thought.endswith("\n") and "<" not in problem.question, f"{name}: {problem}"
            keys[is_held_out(key)].add(key)
        for held_out in (False, True):
            questions = {sample(rng, (name,), digits, held_out).question for _ in range(count // 10)}
            wordings |= {(question, held_out) for question in questions}
        both = {q for q, h in wordings if h} & {q for q, h in wordings if not h}
        assert not both and not keys[True] & keys[False], f"{name}: trained on and held out: {both}"
        share = len(keys[True]) / max(1, len(keys[True]) + len(keys[False]))
        print(f"{name:15} {count} problems right, {share:.1%} of {len(keys[True]) + len(keys[False])} held out")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--show", type=int, metavar="N")
    parser.add_argument("kinds", nargs="*", default=list(KINDS))
    arguments = parser.parse_args()
    if arguments.check:
        check()
    rng = random.Random(0)
    for name in arguments.kinds if arguments.show else ():
        for _ in range(arguments.show):
            problem = sample(rng, (name,))
            print(f"--- {name}\n{problem.question}\n<think>{problem.thought}</think>{problem.answer}")


if __name__ == "__main__":
    main()
