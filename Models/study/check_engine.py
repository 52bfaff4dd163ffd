"""Holds the engine's routing on the final checkpoints against what the trainer measured, on the same held-out text.

    python Models/study/check_engine.py [--scale short] [--only A-lbl]

For every finished run whose checkpoint STATE still has. Exits with 1 if a number differs by more than `--limit`.
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


def differences(report: dict, results: Path):
    """(how far apart, what) of every number."""
    rows, shares = read_rows(results / "frozen.csv"), read_rows(results / "experts.csv")
    for row, layer in zip(rows, report["layers"], strict=True):
        if report["tokens"] != int(row["tokens"]):
            sys.exit(f"{results}: {row['tokens']} tokens measured, the engine read {report['tokens']}")
        yield abs(len(layer["unused"]) - int(row["unused"])), f"layer {row['layer']}, unused"
        for ours, engines in NAMES.items():
            yield abs(float(row[ours]) - layer[engines]), f"layer {row['layer']}, {ours}"
        for share in (share for share in shares if share["layer"] == row["layer"]):
            expert = int(share["expert"])
            for value in ("f", "p"):
                yield abs(float(share[value]) - layer[value][expert]), f"layer {row['layer']}, expert {expert}, {value}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commands", type=Path, default=data.ROOT / ".build" / "release", help="where sigma-eval is (.build/release)")
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--state", type=Path, default=data.ROOT / ".study")
    parser.add_argument("--results", type=Path, help="Models/study/results/SCALE")
    parser.add_argument("--only", nargs="+", metavar="VARIANT", default=list(VARIANTS))
    parser.add_argument("--limit", type=float, default=1e-5, help="largest difference allowed (1e-5)")
    arguments = parser.parse_args()

    worst, results = 0.0, arguments.results or HERE / "results" / arguments.scale
    for finished in sorted(results.glob("*/seed-*/frozen.csv")):
        run = finished.parent.relative_to(results)
        checkpoint = arguments.state / arguments.scale / "runs" / run / "checkpoint"
        if run.parts[0] not in arguments.only or not checkpoint.exists():
            continue
        report = engine_report(arguments.commands, checkpoint, arguments.state / "corpus" / "held-out.txt")
        found = sorted(differences(report, finished.parent), reverse=True)
        largest, what = found[0]
        print(f"{run}: {len(found)} numbers of {report['tokens']} tokens; largest difference {largest:.1e} ({what})", flush=True)
        worst = max(worst, largest)
    sys.exit(worst > arguments.limit)


if __name__ == "__main__":
    main()
