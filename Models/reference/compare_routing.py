"""Compares what `sigma-eval routing --json` says of a text with what the reference finds, on a Hugging Face checkpoint.

    sigma-convert CHECKPOINT model.gguf --type f32
    sigma-eval tokenize text.txt --model model.gguf > ids.json
    sigma-eval routing text.txt --model model.gguf --kv-type f32 --json > engine.json
    python Models/reference/compare_routing.py CHECKPOINT engine.json ids.json [MORE_IDS.json ...] [--bos ID] [--limit 1e-5]

Of several texts the ids come in the texts' order. `--special` belongs to both commands or to none. Where two experts are within 1e-6 of each other rounding may choose either: such
choices are counted. Exits with 1 if a difference exceeds `--limit`.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

from routing_statistics import Routing, margins, statistics
from sigma_checkpoint import load_model

QUANTILES = 0.012  # how far a quantile of the engine's histogram may be off, relative


def differences(expected, found, name: str = ""):
    """(name, how far apart) of every number."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            yield from differences(value, found[key], f"{name}.{key}")
    elif isinstance(expected, list):
        if len(expected) != len(found):
            sys.exit(f"{name}: expected {len(expected)} values, found {len(found)}")
        for index, (a, b) in enumerate(zip(expected, found)):
            yield from differences(a, b, f"{name}[{index}]")
    elif name.endswith(".p50"):
        yield name, max(0.0, abs(expected - found) - QUANTILES * expected)
    else:
        yield name, abs(expected - found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("engine_json", type=Path)
    parser.add_argument("ids_json", type=Path, nargs="+")
    parser.add_argument("--bos", type=int, help="begins every window (default: none)")
    parser.add_argument("--limit", type=float, default=1e-5, help="largest difference allowed (1e-5)")
    arguments = parser.parse_args()

    found = json.loads(arguments.engine_json.read_text())
    torch.set_num_threads(1)
    routing = Routing(load_model(arguments.checkpoint))
    for ids in arguments.ids_json:
        routing.read(json.loads(ids.read_text()), found["context"], arguments.bos)
    expected = statistics(routing, found["tau"])
    close = sum(int((margins(routing, layer) < 1e-6).sum()) for layer in routing.layers)
    pairs = sorted(differences(expected, found), key=lambda pair: -pair[1])
    print(f"{expected['tokens']} tokens, {len(pairs)} numbers compared, {close} choices closer than 1e-6")
    for name, difference in pairs[:3]:
        print(f"{difference:.2e}  {name.lstrip('.')}")
    sys.exit(pairs[0][1] > arguments.limit)


if __name__ == "__main__":
    main()
