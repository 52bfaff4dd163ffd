"""What each type costs the demo model: bits, divergence, perplexity and right answers, with and without an importance matrix; and the
squared error of every matrix beside that of llama.cpp's quantizer.

    python3 -m venv .venv && .venv/bin/pip install -r Benchmarks/quantization/requirements.txt
    make build
    .venv/bin/python Benchmarks/quantization/measure.py

Writes the tables in docs/quantization.md between their markers, docs/quantization.svg, and docs/quantization.json with all numbers.
`--without-llama` leaves llama.cpp's columns out, where its package is not installed.
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Models" / "demo"))

import errors
import report
from commands import Commands
from kinds import KINDS
from tasks import conversation, sample

TYPES = ("q8_0", "q6_k", "q5_k", "q4_k", "q4_0", "q3_k")
CHECKPOINT = ROOT / "Models" / "demo" / "checkpoint"


def conversations(seed: str, count: int, held_out: bool) -> str:
    """Whole conversations in the demo model's chat format, three of four with thought."""
    rng = random.Random(seed)
    names = tuple(name for name in KINDS if name != "repeating")
    texts = []
    for i in range(count):
        problem = sample(rng, names, 6, held_out)
        texts.append("".join(text for text, _ in conversation([problem], i % 4 != 0)))
    return "".join(texts)


def measure(commands: Commands, folder: Path, questions: int, uses_llama: bool) -> dict:
    calibration, text = folder / "calibration.txt", folder / "held-out.txt"
    calibration.write_text(conversations("calibration", 700, held_out=False))
    text.write_text(conversations("held out", 500, held_out=True))
    reference, matrix = folder / "bf16.gguf", folder / "demo.imatrix"
    commands.run("sigma-convert", CHECKPOINT, reference, "--type", "bf16")
    gathered = commands.json("imatrix", calibration, "--conversations", "--model", reference, "--output", matrix)
    base = commands.json("perplexity", text, "--conversations", "--model", reference)
    rows = [{"type": "bf16", "imatrix": False, "bits": 16.0, "perplexity": base["perplexity"], "nll": base["nll"], "nll_se": base["nll_se"]}]
    rows[0] |= accuracy(commands, reference, questions)
    exact = folder / "exact.gguf"
    commands.run("sigma-convert", CHECKPOINT, exact, "--type", "f32", "--plain-gguf")
    tensors = {}
    for type_name in TYPES:
        for weighted in (False, True):
            options = ["--type", type_name, "--output-type", type_name] + (["--imatrix", matrix] if weighted else [])
            name = f"{type_name}{'-imatrix' if weighted else ''}"
            model, plain = folder / f"{name}.gguf", folder / f"{name}-plain.gguf"
            commands.run("sigma-convert", CHECKPOINT, model, *options)
            commands.run("sigma-convert", CHECKPOINT, plain, *options, "--plain-gguf")
            found = commands.json("compare", text, "--conversations", "--model", model, "--reference", reference)
            row = {"type": type_name, "imatrix": weighted, "bits": errors.bits_per_weight(plain)}
            row |= {key: found[key] for key in ("kl_mean", "kl_se", "kl_p99", "top1_agreement", "nll", "nll_difference", "nll_difference_se")}
            rows.append(row | accuracy(commands, model, questions))
            tensors[name] = errors.of_tensors(exact, plain, matrix, type_name, weighted, uses_llama)
            print(f"{name}: {rows[-1]}", flush=True)
    return {
        "text_tokens": base["tokens"], "calibration_tokens": gathered["tokens"], "questions": questions, "rows": rows, "tensors": tensors,
    }


def accuracy(commands: Commands, model: Path, questions: int) -> dict:
    found = commands.json("task", "--model", model, "--count", questions, "--no-direct")
    share, count = found["with_thinking"], found["count"]
    return {"accuracy": share, "accuracy_se": (share * (1 - share) / count) ** 0.5, "answers": count}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commands", type=Path, default=ROOT / ".build" / "release", help="folder of sigma-convert and sigma-eval")
    parser.add_argument("--questions", type=int, default=100, help="questions of each kind (100)")
    parser.add_argument("--without-llama", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Commands(arguments.commands), Path(folder), arguments.questions, not arguments.without_llama)
    report.write(results, ROOT / "docs")


if __name__ == "__main__":
    main()
