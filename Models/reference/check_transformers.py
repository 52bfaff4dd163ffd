"""The engine against transformers on random checkpoints of every variant of `make_public_fixtures.py`, larger than the fixtures are.

    python Models/reference/check_transformers.py [--commands FOLDER] [--seeds 3] [VARIANT ...]

Converts each with `--type f32` and compares log-probabilities of a prompt and the greedy text behind it. A position is left out where a router was
undecided there or earlier (margin <= 1e-5), and greedy text is followed until a choice of a token or an expert is close. Exits with 1 where a
log-probability differs by 1e-3 or more, or a text differs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import Qwen3MoeConfig
from transformers.utils import logging

from make_public_fixtures import VARIANTS, draw, greedy, run

LARGER = dict(vocab_size=512, hidden_size=128, intermediate_size=192, num_hidden_layers=4, num_attention_heads=8, max_position_embeddings=1024)
LARGER_EXPERTS = dict(moe_intermediate_size=64, num_experts=16, num_experts_per_tok=4)
PROMPT, GREEDY = 160, 24
LIMIT = 1e-3


def sizes(variant) -> dict:
    larger = LARGER | (LARGER_EXPERTS if variant.config is Qwen3MoeConfig else {})
    rope = variant.changes.get("rope_parameters")
    if rope and rope["rope_type"] == "yarn":  # most of the prompt lies behind the original length
        larger = larger | {"rope_parameters": rope | {"original_max_position_embeddings": 64}, "max_position_embeddings": 256}
    return larger


def engine(commands: Path, model: Path, tokens: list[int], *options) -> list[dict]:
    command = [commands / "sigma-run", "--model", model, "--tokens", ",".join(map(str, tokens)), "--json", "--kv-type", "f32", "--threads", "1", *options]
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(result.stderr)
    return [json.loads(line) for line in result.stdout.splitlines()]


def check(commands: Path, name: str, seed: int, folder: Path) -> tuple[float, int, int, int]:
    """The largest difference, positions compared, and greedy tokens that were compared and that were equal."""
    variant, generator = VARIANTS[name], torch.Generator().manual_seed(seed)
    model = draw(variant, generator, folder / "checkpoint", sizes(variant))
    tokens = torch.randint(LARGER["vocab_size"], (PROMPT,), generator=generator).tolist()
    native = folder / "native.gguf"
    converted = subprocess.run(
        [str(commands / "sigma-convert"), folder / "checkpoint", native, "--type", "f32"], capture_output=True, text=True
    )
    if converted.returncode != 0:
        sys.exit(f"{name}: {converted.stderr}")
    logits, margins = run(model, tokens)
    expected, decided = logits.log_softmax(-1), margins.cummin(0).values > 1e-5
    [positions] = [
        event["positions"] for event in engine(commands, native, tokens, "--max-tokens", 0, "--logprobs", LARGER["vocab_size"])
        if event["event"] == "prompt-logprobs"
    ]
    worst = 0.0
    for i, position in enumerate(positions):
        if decided[i]:
            assert len(position["top"]) == LARGER["vocab_size"]
            worst = max(worst, max(abs(expected[i, top["id"]].item() - top["logprob"]) for top in position["top"]))
    wanted, gaps, margin = greedy(model, tokens, GREEDY)
    ends = model.config.eos_token_id or []
    ends = ends if isinstance(ends, list) else [ends]
    length = next((i for i, token in enumerate(wanted) if token in ends), GREEDY)
    if margin > 1e-5:
        length = next((i for i, gap in enumerate(gaps[:length]) if gap < LIMIT), length)
    else:
        length = 0
    found = [event["id"] for event in engine(commands, native, tokens, "--max-tokens", GREEDY, "--temperature", 0) if event["event"] == "token"]
    return worst, int(decided.sum()), length, sum(a == b for a, b in zip(found[:length], wanted[:length]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="*", choices=[[], *VARIANTS])
    parser.add_argument("--commands", type=Path, default=Path(".build/release"))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    failed = False
    print(f"{'variant':16}{'largest difference':>20}{'positions':>12}{'greedy tokens equal':>22}")
    for name in arguments.variants or VARIANTS:
        with tempfile.TemporaryDirectory() as folder:
            results = [check(arguments.commands, name, seed, Path(folder)) for seed in range(arguments.seeds)]
        worst, (positions, length, equal) = max(r[0] for r in results), (sum(r[i] for r in results) for i in (1, 2, 3))
        failed |= worst >= LIMIT or equal != length
        print(f"{name:16}{worst:20.1e}{positions:8} of {PROMPT * arguments.seeds:<4}{equal:12} of {length}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    main()
