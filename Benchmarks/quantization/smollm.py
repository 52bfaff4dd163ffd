"""What types of weights and of the cache cost SmolLM2-135M-Instruct, a real language model: divergence and perplexity; and its perplexity beside a float
reference's and llama.cpp's.

    make smollm
    pip install -r Benchmarks/quantization/requirements.txt
    python Benchmarks/quantization/smollm.py Models/smollm/SmolLM2-135M-Instruct.Q4_1.gguf --output smollm.json

The text is English and at hand: Python's own language reference (`pydoc_data.topics`); the importance matrix comes from another part of it. The reference
model has the values of the file's blocks as f32. Each type is made of these values, so what it costs comes on top of what the file's own blocks cost.
Windows of 512 tokens, each scored but for its first token, in all three engines. llama.cpp runs with and without its own rounding of activations: on the
file, and on the same values as F32.

Prints the tables, and writes all numbers to --output. Takes about half an hour on two cores.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from pydoc_data import topics

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "Models" / "reference"), str(ROOT / "Benchmarks" / "peers")]

from commands import Commands  # noqa: E402
from errors import bits_per_weight  # noqa: E402
from gguf_reference import DenseModel  # noqa: E402

WINDOW = 512
TYPES = ["bf16", "q8_0", "q6_k", "q5_k", "q4_k", "q4_0", "q3_k"]


def nll(log_probs_of, tokens: list[int]) -> float:
    """The mean over all windows. `log_probs_of`: [tokens, vocabulary] of a window."""
    total, count = 0.0, 0
    for start in range(0, len(tokens), WINDOW):
        window = tokens[start : start + WINDOW]
        if len(window) > 1:
            values = log_probs_of(window)[np.arange(len(window) - 1), window[1:]]
            total, count = total - float(values.sum(dtype=np.float64)), count + len(values)
    return total / count


def llama(path: Path):
    import llama_probe

    def log_probs(tokens):
        logits = llama_probe.run(path, tokens)[0].astype(np.float64)
        logits -= logits.max(-1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    return log_probs


def texts(commands: Commands, model: Path, folder: Path, windows: int) -> tuple[Path, Path]:
    """A text of so many windows, and another one of as many for the importance matrix."""
    whole = folder / "whole.txt"
    whole.write_text("\n\n".join(topics.topics.values()))
    ids = commands.tokens(model, whole)
    result = []
    for name, first in [("text", 0), ("calibration", len(ids) - windows * WINDOW)]:
        (folder / "ids.json").write_text(json.dumps(ids[first : first + windows * WINDOW]))
        path = folder / f"{name}.txt"
        path.write_text(commands.run("sigma-eval", "tokenize", "--model", model, "--decode", folder / "ids.json"))
        result.append(path)
    return result[0], result[1]


def measure(commands: Commands, source: Path, folder: Path, windows: int, with_llama: bool) -> dict:
    own, reference, plain, matrix = (folder / name for name in ("own.gguf", "f32.gguf", "plain.gguf", "importance.gguf"))
    commands.run("sigma-convert", source, own)
    commands.run("sigma-convert", source, reference, "--type", "f32")
    commands.run("sigma-convert", reference, plain, "--plain-gguf")
    text, calibration = texts(commands, own, folder, windows)
    tokens = commands.tokens(own, text)
    options = ["--context", WINDOW]
    exact = [*options, "--kv-type", "f32"]
    commands.run("sigma-eval", "imatrix", calibration, "--model", reference, "--output", matrix, *options)
    report = {"tokens": len(tokens), "window": WINDOW, "types": [], "kv": [], "engines": []}

    def row(name: str, model: Path, bits: float | None):
        found = commands.json("compare", text, "--model", model, "--reference", reference, *exact)
        keys = ("kl_mean", "kl_se", "kl_p99", "top1_agreement", "nll", "nll_difference", "nll_difference_se")
        report["types"].append({"type": name, "bits": bits} | {key: found[key] for key in keys})
        print(report["types"][-1], flush=True)

    row("the file's q4_1 and q8_0", own, bits_per_weight(source))
    for kind in TYPES:
        for weighted in [False, True] if kind in ("q5_k", "q4_k", "q4_0", "q3_k") else [False]:
            flags = ["--type", kind, "--output-type", kind] + (["--imatrix", matrix] if weighted else [])
            made, listed = folder / "made.gguf", folder / "listed.gguf"
            commands.run("sigma-convert", plain, made, *flags)
            commands.run("sigma-convert", plain, listed, *flags, "--plain-gguf")
            row(kind + (" + imatrix" if weighted else ""), made, 16.0 if kind == "bf16" else bits_per_weight(listed))
    for name, model in [("f32", reference), ("the file's", own)]:
        for kv in ["f32", "f16", "q8_0"]:
            found = commands.json("perplexity", text, "--model", model, *options, "--kv-type", kv)
            report["kv"].append({"weights": name, "kv": kv, "nll": found["nll"], "perplexity": found["perplexity"]})
            print(report["kv"][-1], flush=True)
    engines = [("a float reference of the file's values", DenseModel(source).log_probs)]
    if with_llama:
        from widen import widen

        wide = folder / "wide.gguf"
        engines.append(("llama.cpp, the file", llama(source)))
        widen(source, wide)
        engines.append(("llama.cpp, the file's values as F32", llama(wide)))
    for name, log_probs in engines:
        value = nll(log_probs, tokens)
        report["engines"].append({"engine": name, "nll": value, "perplexity": float(np.exp(value))})
        print(report["engines"][-1], flush=True)
    return report


def markdown(report: dict) -> str:
    lines = ["| type | bits per weight | KL divergence, nats | 99th percentile | same likeliest token | perplexity | nll above f32 |", "|---|---|---|---|---|---|---|"]
    for row in report["types"]:
        lines.append(
            f"| {row['type']} | {row['bits']:.2f} | {row['kl_mean']:.5f} ± {row['kl_se']:.5f} | {row['kl_p99']:.4f} | {row['top1_agreement']:.2%} "
            f"| {np.exp(row['nll']):.3f} | {row['nll_difference']:+.5f} ± {row['nll_difference_se']:.5f} |"
        )
    lines += ["", "| weights | keys and values | perplexity |", "|---|---|---|"]
    lines += [f"| {row['weights']} | {row['kv']} | {row['perplexity']:.4f} |" for row in report["kv"]]
    lines += ["", "| engine | perplexity |", "|---|---|"]
    lines += [f"| {row['engine']} | {row['perplexity']:.4f} |" for row in report["engines"]]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--commands", type=Path, default=ROOT / ".build" / "release")
    parser.add_argument("--windows", type=int, default=24)
    parser.add_argument("--without-llama", action="store_true")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = measure(Commands(arguments.commands), arguments.source, Path(folder), arguments.windows, not arguments.without_llama)
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=1) + "\n")
    print("\n" + markdown(report), end="")


if __name__ == "__main__":
    main()
