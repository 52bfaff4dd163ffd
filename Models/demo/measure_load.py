"""How evenly a checkpoint's experts are used on held-out questions of every kind, thought and answer included.

    python Models/demo/measure_load.py [CHECKPOINT] [--count 100]

A layer's row: the shares of tokens that its least and its most loaded expert get, as deviations from an even share.
"""

import argparse
import random
import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "reference"))

from sigma_checkpoint import load_model

from kinds import KINDS
from tasks import conversation, sample
from tokenizer import ChatTokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, nargs="?", default=HERE / "checkpoint")
    parser.add_argument("--count", type=int, default=100, help="questions of each kind, each with and without thinking (100)")
    parser.add_argument("--digits", type=int, default=6)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    model, tokenizer = load_model(arguments.checkpoint), ChatTokenizer(arguments.checkpoint)
    experts = model.c.expert_count
    counts = torch.zeros(model.c.layer_count, experts, dtype=torch.long)

    def record(name: str, value: torch.Tensor):
        if name.endswith(".chosen"):
            counts[int(name.split(".")[1])] += value.flatten().bincount(minlength=experts)

    rng = random.Random("load")
    for name in KINDS:
        for _ in range(arguments.count):
            problem = sample(rng, (name,), arguments.digits, held_out=True)
            for thinking in (True, False):
                model.run(tokenizer.encode_pieces([text for text, _ in conversation([problem], thinking)]), record)

    print(f"{counts[0].sum().item()} tokens")
    for i, load in enumerate(counts.tolist()):
        even = sum(load) / experts
        low, high = (f"{value / even - 1:+.0%}" for value in (min(load), max(load)))
        print(f"layer {i}: least {low}, most {high}, experts used {sum(n > 0 for n in load)} of {experts}; tokens per expert {load}")


if __name__ == "__main__":
    main()
