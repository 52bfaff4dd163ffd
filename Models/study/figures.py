"""Draws the study's figures from its results, and writes the tables of docs/study.md.

    python Models/study/figures.py [--scale short]       into docs/study/SCALE and docs/study.md
    python Models/study/figures.py --results FOLDER      into FOLDER/figures; the tables are printed

Every seed is a line or a point of its own. What has no results yet is left out.
"""

import argparse
import math
import statistics
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from runs import GROUPS, HERE, SCALES, SWITCH, VARIANTS

from effects import LAYERS, effects_table
from measure import read_rows

DOCUMENTS = HERE.parents[1] / "docs"
COLOURS = {"A": "black", "B": "tab:orange", "C": "tab:blue", "D": "tab:green", "E": "tab:red", "F": "tab:purple"}
DASHES = ("-", "--", ":")


class Results:
    """What is done: for each variant and seed the rows of curves, frozen model and experts."""

    def __init__(self, folder: Path):
        self.runs: dict[str, dict[int, Path]] = {}
        for name in VARIANTS:
            for place in sorted(folder.glob(f"{name}/seed-*")):
                if (place / "frozen.csv").exists():
                    self.runs.setdefault(name, {})[int(place.name.removeprefix("seed-"))] = place

    def seeds_of_both(self, name: str, other: str) -> list[int]:
        return sorted(self.runs.get(name, {}).keys() & self.runs.get(other, {}).keys())

    def column(self, name: str, seed: int, column: str) -> list[float]:
        """Of the curves."""
        return [float(row[column]) for row in read_rows(self.runs[name][seed] / "curves.csv")]

    def frozen(self, name: str, seed: int, layer: int) -> dict[str, str]:
        return read_rows(self.runs[name][seed] / "frozen.csv")[layer]

    def experts(self, name: str, seed: int, layer: int) -> list[dict[str, str]]:
        return [row for row in read_rows(self.runs[name][seed] / "experts.csv") if int(row["layer"]) == layer]


def colour_of(name: str) -> str:
    return COLOURS.get(name[0], "tab:brown")


def styles(names: list[str]) -> dict[str, dict]:
    """A colour for each strategy, and a dash for each variant of it."""
    seen: dict[str, int] = defaultdict(int)
    found = {}
    for name in names:
        found[name] = dict(color=colour_of(name), linestyle=DASHES[seen[name[0]] % len(DASHES)], linewidth=0.9)
        seen[name[0]] += 1
    return found


def present(results: Results, *names: str) -> list[str]:
    """Those of the variants that have results."""
    return [name for name in names if name in results.runs]


def grid(rows: int, columns: int, **options):
    return plt.subplots(rows, columns, figsize=(4 * columns, 2.6 * rows), layout="constrained", squeeze=False, **options)


def draw_deviation(results: Results, layer: int = 0):
    """The paper's Figures 2(a), 3 and 5: most and least used expert over the steps, single batches; a panel for each variant."""
    names = [name for name in results.runs if not name.endswith("-long")]
    figure, axes = grid((len(names) + 2) // 3, 3, sharex=True, sharey=True)
    for axis, name in zip(axes.flat, names):
        for i, seed in enumerate(results.runs[name]):
            steps = results.column(name, seed, "step")
            for end in ("most", "least"):
                loads = [max(1 + value, 0.01) for value in results.column(name, seed, f"{end}_{layer}")]
                axis.plot(steps, loads, color=f"C{i}", linewidth=0.7, label=f"seed {seed}" if end == "most" else None)
        axis.axhline(1, color="black", linewidth=0.5)
        axis.set_yscale("log")
        axis.set_title(VARIANTS[name].label)
        axis.legend(loc="center right")
    for axis in axes[:, 0]:
        axis.set_ylabel(f"load over even, layer {layer}\n(0.01: an expert is unused)")
    for axis in axes[-1]:
        axis.set_xlabel("step")
    return figure


def draw_shares(results: Results):
    """The paper's Figures 2(b) and (c): f and p of the frozen model, each sorted, in the lowest and the highest layer."""
    names = present(results, "A-lbl", "B-lbl-1e-2", "C-top1", "D-switch", "E-bias-1e-3", "E-bias-1e-1")
    figure, axes = grid(2, len(names), sharex=True)
    for column, name in enumerate(names):
        for row, layer in enumerate((0, LAYERS - 1)):
            axis = axes[row][column]
            for seed in results.runs[name]:
                experts = results.experts(name, seed, layer)
                for value, colour in (("f", "tab:red"), ("p", "tab:blue")):
                    shares = sorted((len(experts) * float(expert[value]) for expert in experts), reverse=True)
                    axis.plot(shares, color=colour, linewidth=0.8, label=value if seed == min(results.runs[name]) else None)
            axis.axhline(1, color="black", linewidth=0.5)
            axis.set_title(f"{VARIANTS[name].label}, layer {layer}")
            axis.legend()
    for axis in axes[:, 0]:
        axis.set_ylabel("share over even")
    for axis in axes[-1]:
        axis.set_xlabel("experts, sorted")
    return figure


def draw_spread(results: Results):
    """The spread of a token's scores over the steps, for each layer. Where it falls and the loss is low, LBL takes its shortcut."""
    names = present(results, "A-lbl", "B-lbl-1e-2", "C-top1", "D-switch", "E-bias-1e-1")
    look = styles(names)
    figure, axes = grid(1, LAYERS, sharey=True)
    for layer, axis in enumerate(axes[0]):
        for name in names:
            for seed in results.runs[name]:
                first = seed == min(results.runs[name])
                axis.plot(results.column(name, seed, "step"), results.column(name, seed, f"score_sd_{layer}"), **look[name],
                          label=VARIANTS[name].label if first else None)
        axis.set_title(f"layer {layer}")
        axis.set_xlabel("step")
    axes[0][0].set_ylabel("sd of a token's scores")
    axes[0][0].legend()
    return figure


def draw_switch(results: Results):
    """The paper's Table 3: loss after the switch over the loss without it, on the same batches."""
    figure, axes = grid(1, 1)
    axis = axes[0][0]
    axis.axhline(0, color="black", linewidth=0.5)
    for name, colour in (("D-switch", "tab:green"), ("D-switch-1e-2", "tab:olive")):
        for seed in results.seeds_of_both(name, "D-keep"):
            steps = results.column(name, seed, "step")
            pairs = zip(steps, results.column(name, seed, "mean_loss"), results.column("D-keep", seed, "mean_loss"))
            gaps = [(step, 100 * (ours / kept - 1)) for step, ours, kept in pairs if step > SWITCH * steps[-1]]
            axis.plot(*zip(*gaps), ".-", color=colour, linewidth=0.8, label=f"{VARIANTS[name].label}, seed {seed}")
    axis.set_xlabel("step")
    axis.set_ylabel("loss above the unswitched run, %")
    axis.legend(loc="upper left")
    return figure


def draw_price(results: Results):
    """The paper's Figure 4: what balance costs. A point is a frozen model on the held-out text."""
    figure, axes = grid(1, 2, sharey=True)
    markers = iter("osv^D<>PX*hdp8+")
    for name in (name for name in results.runs if not name.endswith("-long")):
        marker = next(markers)
        for axis, layers in zip(axes[0], ((0,), range(LAYERS))):
            for seed in results.runs[name]:
                rows = [results.frozen(name, seed, layer) for layer in layers]
                effective = statistics.mean(math.exp(float(row["entropy"])) for row in rows)
                label = VARIANTS[name].label if seed == min(results.runs[name]) else None
                axis.plot(effective, float(rows[0]["loss"]), marker, color=colour_of(name), markersize=4, label=label)
    axes[0][0].set_xlabel("exp(entropy) of f, layer 0 (96: even)")
    axes[0][1].set_xlabel("exp(entropy) of f, mean of all layers")
    axes[0][0].set_ylabel("held-out loss, nats per token")
    axes[0][1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def spread_of(values: list[float], form: str) -> str:
    """The mean, and the least and the largest of the seeds."""
    if len(values) == 1:
        return format(values[0], form)
    return f"{statistics.mean(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def tables(results: Results) -> str:
    return f"{variants_table(results)}\n\n{effects_table(results)}"


def variants_table(results: Results) -> str:
    columns = (
        ("held-out loss", 0, "loss", ".3f"), ("most, layer 0", 0, "most", "+.2f"), ("least, layer 0", 0, "least", "+.2f"),
        ("entropy, layer 0", 0, "entropy", ".2f"), (f"entropy, layer {LAYERS - 1}", LAYERS - 1, "entropy", ".2f"),
    )
    lines = [f"| variant | seeds | {' | '.join(title for title, *_ in columns)} |", "|---" * (2 + len(columns)) + "|"]
    for name, seeds in results.runs.items():
        cells = [
            spread_of([float(results.frozen(name, seed, layer)[column]) for seed in seeds], form) for _, layer, column, form in columns
        ]
        lines.append(f"| {VARIANTS[name].label} | {', '.join(map(str, seeds))} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_tables(scale: str, results: Results):
    """Between the marks that docs/study.md has for the scale."""
    done, planned = sum(map(len, results.runs.values())), sum(map(len, GROUPS))
    text = f"Scale `{scale}`: {done} of {planned} runs are done. Means over seeds, with the least and the largest; then the comparisons.\n\n{tables(results)}"
    document, begin, end = DOCUMENTS / "study.md", f"<!-- {scale}: begin -->\n", f"\n<!-- {scale}: end -->"
    before, rest = document.read_text().split(begin)
    document.write_text(f"{before}{begin}{text}{end}{rest.split(end)[1]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--results", type=Path, help="other results than Models/study/results/SCALE")
    arguments = parser.parse_args()
    folder = arguments.results or HERE / "results" / arguments.scale
    target = folder / "figures" if arguments.results else DOCUMENTS / "study" / arguments.scale
    target.mkdir(parents=True, exist_ok=True)

    # The same bytes from the same data: no date, and ids that don't come from chance.
    plt.rcParams.update({"svg.hashsalt": "study", "svg.fonttype": "none", "font.size": 8, "legend.fontsize": 6, "axes.titlesize": 8,
                         "axes.grid": True, "grid.alpha": 0.3})
    results = Results(folder)
    if not results.runs:
        return print("no finished run")
    figures = {draw_deviation: "A-lbl", draw_shares: "A-lbl", draw_spread: "A-lbl", draw_switch: "D-switch", draw_price: "A-lbl"}
    for draw in (draw for draw, needed in figures.items() if needed in results.runs):
        name = draw.__name__.removeprefix("draw_")
        draw(results).savefig(target / f"{name}.svg", metadata={"Date": None})
    if arguments.results:
        print(tables(results))
    else:
        write_tables(arguments.scale, results)


if __name__ == "__main__":
    main()
