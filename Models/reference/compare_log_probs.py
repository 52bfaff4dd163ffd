"""Compares an engine's log-probabilities with the reference's, on a Hugging Face checkpoint.

    sigma-run --model MODEL.gguf --tokens 1,2,3 --max-tokens 0 --logprobs V --json > engine.json
    python Models/reference/compare_log_probs.py CHECKPOINT engine.json [--tokens 1,2,3] [--rope-scaling] [--limit 1e-3]

A position is left out where the router was undecided there or earlier (margin <= 1e-5): rounding may choose another expert,
and every later position attends to the result. Exits with 1 if the difference exceeds `--limit`.
"""

import argparse
import json
import sys
from pathlib import Path

from sigma_checkpoint import load_model

UNDECIDED = 1e-5


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("engine_json", type=Path)
    parser.add_argument("--tokens", help="the prompt's ids (default: those of the engine's `prompt` line)")
    parser.add_argument("--rope-scaling", action="store_true", help="use rope_scaling in a Sigma checkpoint")
    parser.add_argument("--limit", type=float, default=1e-3, help="largest difference allowed (1e-3)")
    arguments = parser.parse_args()

    events = [json.loads(line) for line in arguments.engine_json.read_text().splitlines() if line.strip()]
    [positions] = [e["positions"] for e in events if e["event"] == "prompt-logprobs"]
    if arguments.tokens:
        tokens = [int(t) for t in arguments.tokens.split(",")]
    else:
        [tokens] = [e["ids"] for e in events if e["event"] == "prompt"]
    if len(positions) != len(tokens):
        sys.exit(f"{len(tokens)} tokens, but {len(positions)} positions")

    logits, margins = load_model(arguments.checkpoint, arguments.rope_scaling).run(tokens)
    log_probs = logits.log_softmax(-1)
    decided = margins.cummin(0).values > UNDECIDED
    worst, compared, agreeing = (0.0, -1, -1), 0, 0
    for i, position in enumerate(positions):
        if not decided[i]:
            continue
        pairs = [(t["id"], t["logprob"]) for t in position.get("top", [])]
        if "logprob" in position:
            if position["id"] != tokens[i + 1]:
                sys.exit(f"position {i}: expected token {tokens[i + 1]} to follow, found {position['id']}")
            pairs.append((position["id"], position["logprob"]))
        worst = max([worst, *((abs(log_probs[i, t].item() - value), i, t) for t, value in pairs)])
        compared += len(pairs)
        agreeing += bool(position.get("top")) and position["top"][0]["id"] == log_probs[i].argmax().item()

    used = int(decided.sum())
    print(f"largest difference {worst[0]:.2e} (position {worst[1]}, token {worst[2]}), {compared} values compared")
    print(f"likeliest token agrees at {agreeing} of {used} positions; left out as undecided: {len(tokens) - used} of {len(tokens)}")
    sys.exit(compared == 0 or worst[0] > arguments.limit)


if __name__ == "__main__":
    main()
