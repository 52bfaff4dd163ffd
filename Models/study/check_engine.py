"""Holds the engine's routing on the final checkpoints against what the trainer measured, on the same held-out text.

    python Models/study/check_engine.py [--scale short] [--only A-lbl]

For every finished run whose checkpoint STATE still has. Exits with 1 if a number differs by more than `--limit` and what undecided choices
explain.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from runs import HERE, SCALES, VARIANTS  # first: it finds the other folders

import data
from measure import read_rows

NAMES = {"lbl": "lbl", "top1_lbl": "top1_lbl", "most": "deviation_max", "least": "deviation_min", "entropy": "entropy"}


def engine_report(commands: Path, checkpoint: Path, text: Path) -> dict:
    """`sigma-eval routing` of the unquantized model."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.gguf"
        subprocess.run([commands / "sigma-convert", checkpoint, model, "--type", "f32"], check=True, stdout=subprocess.DEVNULL)
        command = [commands / "sigma-eval", "routing", text, "--model", model, "--kv-type", "f32", "--context", str(data.CONTEXT)]
        return json.loads(subprocess.run([*command, "--json"], check=True, stdout=subprocess.PIPE).stdout)


def beginning(corpus: data.Corpus, windows: int) -> str:
    """The held-out text's first windows."""
    ids = [token for window in corpus.held_out()[:windows] for token in window]
    text = corpus.tokenizer.decode(ids, skip_special_tokens=False)
    if corpus.tokenizer.encode(text).ids != ids:
        sys.exit(f"{corpus.folder}: the held-out text's first {windows} windows have other tokens when they stand alone")
    return text


def compare(report: dict, results: Path, limit: float) -> bool:
    """Prints how far apart the numbers are, and whether that is within the limit.

    Where two experts' scores are equal but for rounding, the two programs may choose differently. A layer may have as many such choices as
    the engine calls undecided (margins of 1e-5 and less), and what is counted from choices may differ by what those choices amount to: a
    share of them moves f by as much, and no other number by more than the count of experts times that.
    """
    rows, shares = read_rows(results / "frozen.csv"), read_rows(results / "experts.csv")
    count, within, otherwise, undecided, largest, plain = 0, True, 0, 0, (0.0, "none"), (0.0, "none")
    for row, layer in zip(rows, report["layers"], strict=True):
        if report["tokens"] != int(row["tokens"]):
            sys.exit(f"{results}: {row['tokens']} tokens measured, the engine read {report['tokens']}")
        ours = [share for share in shares if share["layer"] == row["layer"]]
        choices = report["tokens"] * int(row["experts_per_token"])
        moved = sum(abs(round(float(share["f"]) * choices) - round(f * choices)) for share, f in zip(ours, layer["f"], strict=True)) // 2
        otherwise, undecided = otherwise + moved, undecided + round(layer["margin"]["undecided"] * report["tokens"])
        slack = moved / choices

        values = [(abs(len(layer["unused"]) - int(row["unused"])), moved, "unused")]
        values += [(abs(float(row[name]) - layer[engines]), len(ours) * slack, name) for name, engines in NAMES.items()]
        for share in ours:
            for name, allowed in (("f", slack), ("p", 0)):
                values.append((abs(float(share[name]) - layer[name][int(share["expert"])]), allowed, f"expert {share['expert']}, {name}"))
        for difference, allowed, name in values:
            count, within = count + 1, within and difference <= limit + allowed
            largest = max(largest, (difference, f"layer {row['layer']}, {name}"))
            if not allowed:
                plain = max(plain, (difference, f"layer {row['layer']}, {name}"))
    print(f"{count} numbers of {report['tokens']} tokens; largest difference {plain[0]:.1e} ({plain[1]})", end="")
    if otherwise:
        print(f"; {otherwise} of {undecided} undecided choices differ: with what depends on them {largest[0]:.1e} ({largest[1]})", end="")
    print(flush=True)
    return within and otherwise <= undecided


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commands", type=Path, default=data.ROOT / ".build" / "release", help="where sigma-eval is (.build/release)")
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--state", type=Path, default=data.ROOT / ".study")
    parser.add_argument("--results", type=Path, help="Models/study/results/SCALE")
    parser.add_argument("--only", nargs="+", metavar="VARIANT", default=list(VARIANTS))
    parser.add_argument("--limit", type=float, default=1e-5, help="largest difference allowed (1e-5)")
    arguments = parser.parse_args()

    equal, compared = True, 0
    results, corpus = arguments.results or HERE / "results" / arguments.scale, arguments.state / "corpus"
    if arguments.scale == "quick":  # as run.py has it
        results, corpus = arguments.results or arguments.state / "quick" / "results", arguments.state / "quick" / "corpus"
    text = corpus / "held-out.txt"
    if SCALES[arguments.scale].held_out:
        text = arguments.state / arguments.scale / "held-out.txt"
        text.write_text(beginning(data.Corpus(corpus), SCALES[arguments.scale].held_out))
    for finished in sorted(results.glob("*/seed-*/frozen.csv")):
        run = finished.parent.relative_to(results)
        checkpoint = arguments.state / arguments.scale / "runs" / run / "checkpoint"
        if run.parts[0] not in arguments.only or not checkpoint.exists():
            continue
        report = engine_report(arguments.commands, checkpoint, text)
        print(f"{run}: ", end="")
        equal &= compare(report, finished.parent, arguments.limit)
        compared += 1
    if compared == 0:
        sys.exit(f"{arguments.state} has no checkpoint of a run in {results}: nothing was compared")
    sys.exit(not equal)


if __name__ == "__main__":
    main()
