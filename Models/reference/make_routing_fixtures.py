"""Writes `Tests/Fixtures/routing/`: what the reference finds in the routing of random tokens by the tiny checkpoints of
`Tests/Fixtures/reference/`.

    python Models/reference/make_routing_fixtures.py

Seeded: the same files with the versions in `Models/requirements.txt`. The tokens are drawn again until no choice is close.
"""

import json
import random
from pathlib import Path

import torch

from routing_statistics import Routing, margins, statistics
from sigma_checkpoint import load_model

FIXTURES = Path(__file__).resolve().parents[2] / "Tests" / "Fixtures"
TOKENS = 150
# Checkpoint: (context, tau). Sigmoid and softmax, top-1 and several, one k for each layer, dense layers, weights that are normalised.
CASES = {
    "sigma-top1": (64, 1.0),
    "sigma-topk-per-layer": (50, 0.5),
    "sigma-softmax": (150, 2.0),
    "sigma-dense-layers": (40, 1.0),
    "sigma-odd-sizes": (64, 0.1),
    "qwen3moe": (33, 1.0),
}


def closest(routing: Routing) -> float:
    """The smallest lead of a chosen expert over one that was not chosen."""
    gaps = []
    for layer in routing.layers:
        _, scores, chosen = routing.of(layer)
        k = chosen.shape[1]
        ranked = (scores + routing.bias(layer)).sort(-1, descending=True).values
        gaps.append((ranked[:, k - 1] - ranked[:, k]).min().item())
        gaps.append(margins(routing, layer).min().item())
    return min(gaps)


def main():
    torch.set_num_threads(1)
    folder = FIXTURES / "routing"
    folder.mkdir(exist_ok=True)
    for name, (context, tau) in CASES.items():
        model = load_model(FIXTURES / "reference" / name)
        for attempt in range(1000):
            rng = random.Random(f"{name} {attempt}")
            tokens = [rng.randrange(model.c.vocab_size) for _ in range(TOKENS)]
            routing = Routing(model)
            routing.read(tokens, context)
            if closest(routing) > 1e-4:
                break
        else:
            raise SystemExit(f"{name}: always a close choice")
        expected = {"context": context, "input": tokens, **statistics(routing, tau)}
        path = folder / f"{name}.json"
        path.write_text(json.dumps(expected) + "\n")
        print(f"{name}: {path.stat().st_size:,} bytes, attempt {attempt}")


if __name__ == "__main__":
    main()
