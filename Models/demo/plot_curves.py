"""Draws `curves.csv` as `curves.svg`: loss, held-out accuracy, learning rate, and the load of every layer's experts.

    python Models/demo/plot_curves.py
"""

import csv
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from recipe import EXPERTS, Schedule, Settings

HERE = Path(__file__).resolve().parent
WINDOW = 6  # rows that a point averages


def smooth(values: list[float]) -> list[float]:
    """The mean of each stretch of rows, so that a point stands for many batches."""
    return [sum(part) / len(part) for part in (values[i : i + WINDOW] for i in range(0, len(values), WINDOW))]


def main():
    rows = list(csv.DictReader((HERE / "curves.csv").open()))
    layers = sum(name.endswith("_min") for name in rows[0])

    def column(name: str) -> list[float]:
        return [float(row[name]) for row in rows]

    # The same bytes from the same data: no date, and ids that don't come from chance.
    plt.rcParams.update({"svg.hashsalt": "curves", "svg.fonttype": "none", "font.size": 8, "axes.grid": True, "grid.alpha": 0.3})
    figure, axes = plt.subplots(3 + layers, 1, figsize=(8, 2 * (3 + layers)), sharex=True, layout="constrained")
    tokens = [value / 1e6 for value in smooth(column("tokens"))]

    axes[0].semilogy(tokens, smooth(column("loss")), linewidth=1)
    axes[0].set_ylabel("loss (nats per token)")
    scored = [row for row in rows if row["thinking"]]
    for name, label in (("thinking", "with thinking"), ("direct", "without")):
        axes[1].plot([int(row["tokens"]) / 1e6 for row in scored], [100 * float(row[name]) for row in scored], ".-", linewidth=1, label=label)
    axes[1].set_ylabel("held-out answers right, %")
    axes[1].set_ylim(0, 100)
    axes[1].legend(loc="lower left")
    axes[2].plot(tokens, smooth(column("rate")), linewidth=1)
    axes[2].set_ylabel("learning rate")
    for i, axis in enumerate(axes[3:]):
        low, high = ([EXPERTS * value for value in smooth(column(f"load{i}_{end}"))] for end in ("min", "max"))
        axis.fill_between(tokens, low, high, alpha=0.3)
        axis.axhline(1, color="black", linewidth=0.5)
        axis.set_ylim(0, 3)
        axis.set_ylabel(f"load, layer {i}")
    axes[-1].set_xlabel("training tokens, millions")

    for name, start in Schedule(Settings()).stages():
        for axis in axes:
            axis.axvline(start / 1e6, color="gray", linewidth=0.7, linestyle=":")
        axes[0].annotate(name, (start / 1e6, 1.02), xycoords=("data", "axes fraction"), fontsize=7)
    figure.savefig(HERE / "curves.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
