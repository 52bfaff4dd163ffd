"""Measures the demo model's routing and writes the measured part of docs/load-balance.md, and its plot.

    make load-balance       (or: python Models/demo/load_balance.py, once the commands and Models/demo.gguf are built)

The text is held-out conversations as the model was trained on them, seeded, each in a window of its own. The engine's numbers on
the unquantized model are held against the reference's first.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tasks import BOS, KINDS, SYSTEM_PROMPTS, conversation, sample

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "Models" / "demo" / "checkpoint"
MODEL = ROOT / "Models" / "demo.gguf"
DOCUMENT = ROOT / "docs" / "load-balance.md"
PLOT = ROOT / "docs" / "load-balance.svg"
ADDS_BOS = json.loads((CHECKPOINT / "tokenizer_config.json").read_text()).get("add_bos_token", False)
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def conversations(count: int, digits: int) -> list[str]:
    """Each begins with bos, unless the tokenizer makes the engine put it before every window."""
    rng, texts = random.Random("load balance"), []
    while len(texts) < count:
        problems = [sample(rng, tuple(KINDS), digits, held_out=True) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
        system = rng.choice(SYSTEM_PROMPTS) if rng.random() < 0.1 else ""
        text = "".join(piece for piece, _ in conversation(problems, rng.random() < 0.85, system))
        texts.append(text.removeprefix(BOS) if ADDS_BOS else text)
    return texts


def run(command: list) -> str:
    result = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(map(str, command[:4]))} ...: exit code {result.returncode}\n{result.stdout}")
    return result.stdout


def agreement(commands: Path, folder: Path, texts: list[Path]) -> str:
    """The sentence about the reference, after holding the unquantized model's numbers against it."""
    model, found = folder / "f32.gguf", folder / "f32.json"
    run([commands / "sigma-convert", CHECKPOINT, model, "--type", "f32"])
    found.write_text(run([commands / "sigma-eval", "routing", *texts, "--special", "--model", model, "--kv-type", "f32", "--json"]))
    ids = []
    for text in texts:
        ids.append(text.with_suffix(".json"))
        ids[-1].write_text(run([commands / "sigma-eval", "tokenize", text, "--special", "--model", model]))
    config = json.loads((CHECKPOINT / "config.json").read_text())
    bos = ["--bos", config["bos_token_id"]] if ADDS_BOS else []
    report = run([sys.executable, ROOT / "Models/reference/compare_routing.py", CHECKPOINT, found, *ids, *bos])
    print(report, end="")
    tokens, numbers, close = map(int, re.match(r"(\d+) tokens, (\d+) numbers compared, (\d+) choices", report).groups())
    worst = float(report.splitlines()[1].split()[0])
    return (
        f"On the unquantized model (`--type f32`, `--kv-type f32`) the engine's {numbers} numbers for the first {len(texts)} conversations"
        f" ({tokens:,} tokens) differ from the PyTorch reference's by {worst:.0e} at most"
        + (f"; {close} choices were closer than 1e-6." if close else ".")
    )


def percent(share: float) -> str:
    return f"{share:+.0%}".replace("%", " %")


def tables(report: dict, compared: str, count: int) -> str:
    lines = [
        f"{report['tokens']:,} tokens of {count} held-out conversations, the model as `make demo` converts it (8-bit weights).",
        "",
        "| layer | most, least used | unused | entropy | LBL (eq. 1) | Top-1 LBL (eq. 2, τ = 1) | margin: 1 %, median |",
        "|---|---|---|---|---|---|---|",
    ]
    for layer in report["layers"]:
        margin = layer["margin"]
        lines.append(
            f"| {layer['layer']} | {percent(layer['deviation_max'])}, {percent(layer['deviation_min'])} | {len(layer['unused'])}"
            f" | {layer['entropy']:.3f} | {layer['lbl']:.3f} | {layer['top1_lbl']:.3f} | {margin['p01']:.2g}, {margin['p50']:.2g} |"
        )
    cache = report["cache"]
    slots = len(cache["lru"])
    lines += ["", f"| experts in the cache, of {slots} | size | LRU | best possible |", "|---|---|---|---|"]
    for eighth in range(1, 9):
        size = slots * eighth // 8
        mebibytes = size * cache["expert_bytes"] / 2**20
        lines.append(f"| {size} | {mebibytes:.2f} MiB | {cache['lru'][size - 1]:.1%} | {cache['belady'][size - 1]:.1%} |".replace("%", " %"))
    return "\n".join([*lines, "", compared])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commands", type=Path, default=ROOT / ".build" / "release", help="where sigma-eval is (.build/release)")
    parser.add_argument("--count", type=int, default=300, help="conversations (300)")
    parser.add_argument("--compared", type=int, default=60, help="of them with the reference (60)")
    parser.add_argument("--digits", type=int, default=6, help="of the longest numbers in sums (6)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = []
        for index, text in enumerate(conversations(arguments.count, arguments.digits)):
            texts.append(folder / f"{index:05}.txt")
            texts[-1].write_text(text)
        compared = agreement(arguments.commands, folder, texts[: arguments.compared])
        command = [arguments.commands / "sigma-eval", "routing", *texts, "--special", "--model", MODEL]
        report = json.loads(run([*command, "--json", "--plot", PLOT]))
    before, rest = DOCUMENT.read_text().split(BEGIN)
    _, after = rest.split(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{tables(report, compared, arguments.count)}\n{END}{after}")
    print(f"written: {DOCUMENT.relative_to(ROOT)}, {PLOT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
