"""What mixed types save: divergence over size for uniform types, for llama.cpp's mix Q3_K_M made of our types, and for types chosen by
`sigma-eval sensitivity`.

    python Benchmarks/quantization/mixed.py demo --output demo.json
    python Benchmarks/quantization/mixed.py Models/smollm/SmolLM2-135M-Instruct.Q4_1.gguf --folder smollm --output smollm.json
    python Benchmarks/quantization/mixed.py --draw demo.json smollm.json --plot docs/mixed-types.svg

Importance and sensitivities come from one text, divergences from another: training and held-out conversations for the demo model, two parts of
Python's language reference for SmolLM2. Its source file is widened to f32 first, so that what its own blocks cost is left out. In Q3_K_M rows that
256 does not divide are q4_0 where llama.cpp has IQ4_NL, and q8_0 where it has Q5_0 and more.

--output is written after every row. With --folder, the reference, the importance matrix and the sensitivities stay there, and a second run goes on
from them; the folder belongs to one source and one number of windows.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Models" / "demo"))

from commands import Commands  # noqa: E402

UNIFORM = ["q3_k", "q4_0", "q4_k", "q5_k", "q6_k", "q8_0"]
BITS = [3.6, 3.8, 4.0, 4.25, 4.5, 5.0, 5.5, 6.0, 7.0]
KEYS = ("kl_mean", "kl_se", "kl_p99", "top1_agreement", "nll_difference", "nll_difference_se", "tokens")


def q3_k_m(parts: list[dict]) -> list[str]:
    """The rules of llama.cpp's quantizer for models that don't have exactly eight experts, as --tensor-type options."""
    layers = 1 + max(int(part["name"].split(".")[1]) for part in parts if part["name"].startswith("blk."))
    tied = not any(part["name"] == "output.weight" for part in parts)
    options = []
    for part in parts:
        name, kind = part["name"], "q3_k"
        layer = int(name.split(".")[1]) if name.startswith("blk.") else 0
        if name == "output.weight" or (tied and name == "token_embd.weight"):
            kind = "q6_k"
        elif "attn_v" in name:
            kind = "q5_k" if layer < 2 else "q4_k"
        elif "attn_output" in name:
            kind = "q4_k"
        elif "ffn_down" in name:
            kind = "q5_k" if layer < layers // 16 else "q4_k"
        if part["columns"] % 256:
            kind = "q4_0" if kind == "q3_k" else "q8_0"
        options += ["--tensor-type", f"{name}={kind}"]
    return options


def demo(commands, folder: Path):
    from measure import CHECKPOINT, conversations

    calibration, text = folder / "calibration.txt", folder / "text.txt"
    calibration.write_text(conversations("calibration", 300, held_out=False))
    text.write_text(conversations("held out", 300, held_out=True))
    reference = folder / "reference.gguf"
    if not reference.exists():
        commands.run("sigma-convert", CHECKPOINT, reference, "--type", "bf16")
    return CHECKPOINT, reference, calibration, text, ["--conversations"]


def smollm(commands, folder: Path, source: Path, windows: int):
    import smollm

    reference = folder / "reference.gguf"
    if not reference.exists():
        commands.run("sigma-convert", source, reference, "--type", "f32")
    text, calibration = smollm.texts(commands, reference, folder, windows)
    return reference, reference, calibration, text, ["--context", smollm.WINDOW]


def sensitivities(commands, folder: Path, reference: Path, calibration: Path, options: list) -> dict:
    """What `sigma-eval sensitivity` says, with the importance matrix and the sensitivities left in the folder."""
    matrix, sensitivity, said = folder / "model.imatrix", folder / "model.sensitivity", folder / "sensitivity.json"
    if not said.exists():
        commands.run("sigma-eval", "imatrix", calibration, "--model", reference, "--output", matrix, *options)
        found = commands.json("sensitivity", calibration, "--model", reference, "--output", sensitivity, "--imatrix", matrix, *options)
        said.write_text(json.dumps(found) + "\n")
    return json.loads(said.read_text())


def measure(commands, folder: Path, name: str, output: Path | None, source, reference: Path, calibration: Path, text: Path, options: list) -> dict:
    matrix, sensitivity = folder / "model.imatrix", folder / "model.sensitivity"
    found = sensitivities(commands, folder, reference, calibration, options)
    weights = sum(part["matrices"] * part["rows"] * part["columns"] for part in found["parts"])
    report = {"model": name, "weights": weights, "calibration_tokens": found["tokens"], "rows": []}

    def row(kind: str, name: str, *choice):
        model = folder / "made.gguf"
        commands.run("sigma-convert", source, model, "--imatrix", matrix, "--head-screen", "off", *choice)
        found = commands.json("compare", text, "--model", model, "--reference", reference, "--kv-type", "f32", *options)
        report["rows"].append({"kind": kind, "name": name, "bytes": model.stat().st_size} | {key: found[key] for key in KEYS})
        print(report["rows"][-1], flush=True)
        if output:
            output.write_text(json.dumps(report, indent=1) + "\n")
        return model.stat().st_size

    size = row("llama.cpp's mix", "Q3_K_M", *q3_k_m(found["parts"]))
    row("mixed", "the size of Q3_K_M", "--sensitivity", sensitivity, "--size", size)
    for kind in UNIFORM:
        row("uniform", kind, "--type", kind, "--output-type", kind)
    for bits in BITS:
        try:
            row("mixed", f"{bits} bits", "--sensitivity", sensitivity, "--bits", bits)
        except SystemExit as refused:
            print(refused, flush=True)
    return report


def table(report: dict) -> str:
    lines = ["| types | bytes | bits per weight | KL divergence, nats | 99th percentile | nll above the reference |", "|---|---|---|---|---|---|"]
    for row in sorted(report["rows"], key=lambda row: row["bytes"]):
        lines.append(
            f"| {row['kind']}: {row['name']} | {row['bytes']:,} | {8 * row['bytes'] / report['weights']:.2f} | {row['kl_mean']:.6f} ± {row['kl_se']:.6f} "
            f"| {row['kl_p99']:.4f} | {row['nll_difference']:+.5f} ± {row['nll_difference_se']:.5f} |"
        )
    mix, ours = report["rows"][:2]
    lines += ["", f"At the size of Q3_K_M: {ours['kl_mean'] / mix['kl_mean']:.3f} of its divergence."]
    return "\n".join(lines) + "\n"


def draw(paths: list[Path], target: Path):
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "sigma"
    import matplotlib.pyplot as plot

    figure, axes = plot.subplots(1, len(paths), figsize=(5 * len(paths), 3.6), layout="constrained", squeeze=False)
    styles = {"uniform": ("o", "#3b6ea5"), "mixed": ("s", "#c8642a"), "llama.cpp's mix": ("D", "#4a7d3c")}
    for axis, path in zip(axes[0], paths):
        report = json.loads(path.read_text())
        for kind, (marker, color) in styles.items():
            rows = sorted((row for row in report["rows"] if row["kind"] == kind), key=lambda row: row["bytes"])
            axis.errorbar(
                [8 * row["bytes"] / report["weights"] for row in rows], [row["kl_mean"] for row in rows], [row["kl_se"] for row in rows],
                marker=marker, color=color, label=kind, capsize=3, markersize=5, linestyle="-" if kind == "mixed" else "none",
            )
            for row in rows if kind != "mixed" else []:
                axis.annotate(row["name"], (8 * row["bytes"] / report["weights"], row["kl_mean"]), textcoords="offset points", xytext=(5, 5), fontsize=8)
        axis.set(yscale="log", title=report["model"], xlabel="bits per weight, with the file's header", ylabel="KL divergence, nats")
        axis.margins(x=0.12)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(target, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?", help="'demo', or SmolLM2's GGUF file")
    parser.add_argument("--commands", type=Path, default=ROOT / ".build" / "release", help="folder of sigma-convert and sigma-eval")
    parser.add_argument("--windows", type=int, default=8, help="windows of 512 tokens of each of SmolLM2's texts (8)")
    parser.add_argument("--folder", type=Path, help="keep what takes long to measure here, and go on from what is here")
    parser.add_argument("--output", type=Path, help="where all numbers go")
    parser.add_argument("--draw", type=Path, nargs="+", help="draw what --output wrote, and measure nothing")
    parser.add_argument("--plot", type=Path, default=ROOT / "docs" / "mixed-types.svg")
    arguments = parser.parse_args()
    if arguments.draw:
        return draw(arguments.draw, arguments.plot)
    if not arguments.source:
        parser.error("a source is missing")
    commands = Commands(arguments.commands)
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        if arguments.source == "demo":
            name, parts = "demo model", demo(commands, folder)
        else:
            name, parts = "SmolLM2-135M-Instruct", smollm(commands, folder, Path(arguments.source), arguments.windows)
        report = measure(commands, folder, name, arguments.output, *parts)
    print("\n" + table(report), end="")


if __name__ == "__main__":
    main()
