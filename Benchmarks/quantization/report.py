"""Tables and plot of what measure.py found."""

import json
import math
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "sigma"
import matplotlib.pyplot as plot

NAMES = ("q8_0", "q6_k", "q5_k", "q4_k", "q4_0", "q3_k")
COLORS = {False: "#3b6ea5", True: "#c8642a"}


def name(row: dict) -> str:
    return row["type"] + (" + imatrix" if row["imatrix"] else "")


def types_table(results: dict) -> str:
    lines = [
        "| type (bits) | KL divergence, nats | 99th percentile | same likeliest token | perplexity | nll above bf16 | right answers |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        answers = f"{row['accuracy']:.1%} ± {row['accuracy_se']:.1%}"
        perplexity = f"{math.exp(row['nll']):.5f}"
        if row["type"] == "bf16":
            lines.append(f"| bf16 (16) | 0 | 0 | 100 % | {perplexity} ± {row['perplexity'] * row['nll_se']:.5f} | 0 | {answers} |")
            continue
        lines.append(
            f"| {name(row)} ({row['bits']:.2f}) | {row['kl_mean']:.6f} ± {row['kl_se']:.6f} | {row['kl_p99']:.5f} | {row['top1_agreement']:.2%} "
            f"| {perplexity} | {row['nll_difference']:+.5f} ± {row['nll_difference_se']:.5f} | {answers} |"
        )
    return "\n".join(lines)


def tensors_table(results: dict) -> str:
    """Ours divided by llama.cpp's, over all matrices of a type: least, mean, most; and how many are above 1."""
    lines = [
        "| type | matrices | mean error | llama.cpp's | ours / llama.cpp's: mean (least to most) | matrices above 1 |",
        "|---|---|---|---|---|---|",
    ]
    for type_name in NAMES:
        for weighted in (False, True):
            rows = results["tensors"][type_name + ("-imatrix" if weighted else "")]
            key = "weighted" if weighted else "mse"
            # The embedding has no importance: there nothing is weighted.
            rows = [row for row in rows if not (weighted and row["tensor"] == "token_embd.weight")]
            if not all(f"llama_{key}" in row for row in rows):
                continue
            ratios = [row[f"ours_{key}"] / row[f"llama_{key}"] for row in rows]
            ours, theirs = (sum(row[f"{who}_{key}"] for row in rows) / len(rows) for who in ("ours", "llama"))
            lines.append(
                f"| {type_name}{' + imatrix' if weighted else ''} | {len(rows)} | {ours:.4e} | {theirs:.4e} "
                f"| {sum(ratios) / len(ratios):.4f} ({min(ratios):.4f} to {max(ratios):.4f}) | {sum(ratio > 1 for ratio in ratios)} |"
            )
    return "\n".join(lines)


def draw(results: dict, path: Path) -> None:
    figure, axes = plot.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    rows = [row for row in results["rows"] if row["type"] != "bf16"]
    base = results["rows"][0]
    for weighted in (False, True):
        mine = [row for row in rows if row["imatrix"] == weighted]
        label = "with imatrix" if weighted else "without"
        style = {"color": COLORS[weighted], "label": label, "capsize": 3, "fmt": "s" if weighted else "o", "markersize": 5}
        # Side by side, so that neither hides the other.
        bits = [row["bits"] + (0.07 if weighted else -0.07) + (0.2 if row["type"] == "q4_0" else 0) for row in mine]
        axes[0].errorbar(bits, [row["kl_mean"] for row in mine], yerr=[row["kl_se"] for row in mine], **style)
        axes[1].errorbar(bits, [row["nll_difference"] for row in mine], yerr=[row["nll_difference_se"] for row in mine], **style)
        axes[2].errorbar(bits, [100 * row["accuracy"] for row in mine], yerr=[100 * row["accuracy_se"] for row in mine], **style)
        for row, x in zip(mine, bits):
            if not weighted:
                axes[0].annotate(row["type"], (x, row["kl_mean"]), textcoords="offset points", xytext=(6, 6), fontsize=8)
    axes[0].set_yscale("log")
    axes[1].axhline(0, color="#888888", linewidth=0.8)
    axes[2].axhline(100 * base["accuracy"], color="#888888", linewidth=0.8)
    axes[2].axhspan(
        100 * (base["accuracy"] - base["accuracy_se"]), 100 * (base["accuracy"] + base["accuracy_se"]), color="#888888", alpha=0.15)
    titles = ("KL divergence from bf16, nats", "log-perplexity above bf16's, nats", "right answers, % (grey: bf16)")
    for axis, title in zip(axes, titles):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("bits per weight")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def replace(text: str, marker: str, content: str) -> str:
    begin, end = f"<!-- {marker} -->", f"<!-- end of {marker} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise SystemExit(f"docs/quantization.md must have {begin} and {end} once each")
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2]
    return f"{before}{begin}\n{content}\n{end}{after}"


def write(results: dict, docs: Path) -> None:
    (docs / "quantization.json").write_text(json.dumps(results, indent=1) + "\n")
    page = docs / "quantization.md"
    text = replace(page.read_text(), "types", types_table(results))
    if any("llama_mse" in row for rows in results["tensors"].values() for row in rows):
        text = replace(text, "tensors", tensors_table(results))
    counts = (
        f"Measured over {results['text_tokens']:,} tokens of replies in held-out conversations, and {results['rows'][0]['answers']} questions with "
        f"thinking. The importance matrix comes from {results['calibration_tokens']:,} tokens of training conversations."
    )
    page.write_text(replace(text, "counts", textwrap.fill(counts, 120)))
    draw(results, docs / "quantization.svg")
