"""The speed of llama.cpp and of Sigma on the same weights, on this machine.

Makes a qwen3moe GGUF of a native model (as_qwen3moe.py) and a native model of that, so that both have the same bytes (ours has planes to screen the head
beside them). First every setting of llama.cpp is tried once for each work (flash attention or not; plain and repacked weights, the latter with
and without AMX; sizes of the physical batch) and the fastest kept; then rounds of llama.cpp and Sigma in turn. A round's value is the mean of its
repetitions after one that is not counted; results are medians of rounds. llama.cpp's copy of the weights takes the page cache from ours: before
Sigma's turn its file is read once.

    sigma-convert --synthetic sigma-moe-tiny synthetic.gguf --type q4_0
    python compare_speed.py synthetic.gguf results

Writes FOLDER/speed.md, speed.json and speed.svg; `report.py --speed FOLDER/speed.json` takes them into the documentation. The models that it makes
(each as large as the source) are kept in FOLDER and used again.
"""

import argparse
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

if missing := [name for name in ["llama_cpp", "gguf", "matplotlib", "numpy"] if importlib.util.find_spec(name) is None]:
    sys.exit(f"not installed: {', '.join(missing)}; pip install -r {HERE / 'requirements.txt'}")

import gguf  # noqa: E402
import llama_cpp  # noqa: E402

import as_qwen3moe  # noqa: E402
import report as report_pages  # noqa: E402

WEIGHTS = ["repacked", "repacked, no AMX", "plain"]


def llama(model, weights, works):
    """Tokens per second for each of `works`, in one process; or None where it crashes or refuses."""
    command = [sys.executable, str(HERE / "llama_speed.py"), str(model), weights, json.dumps(works)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode == 0:
        return json.loads(result.stdout.splitlines()[-1])
    reason = f"signal {-result.returncode}" if result.returncode < 0 else result.stderr.strip().splitlines()[-1:]
    print(f"  not measured ({reason}): {weights}", file=sys.stderr)
    return None


def name_of(setting):
    flash = "flash attention" if setting["flash"] else "no flash attention"
    return f"{setting['weights']}, {flash}, ubatch {setting['ubatch']}"


class Sigma:
    def __init__(self, folder, model, arguments):
        self.model = model
        self.generate_count, self.repetitions = arguments.generate, arguments.repetitions
        self.command = [str(folder / "sigma-bench"), "--backend", "cpu", "--model", str(model), "--threads", str(arguments.threads), "--format", "json"]

    def warm(self):
        with open(self.model, "rb", buffering=0) as file:
            while file.read(1 << 24):
                pass

    def run(self, *options):
        result = subprocess.run([*self.command, *map(str, options)], capture_output=True, text=True)
        if result.returncode != 0:
            sys.exit(f"sigma-bench: {result.stderr}")
        return json.loads(result.stdout)

    def prompt(self, count, kv, seed):
        row = self.run("--prompt", count, "--generate", 0, "--kv-type", kv, "--repetitions", self.repetitions, "--seed", seed)[0]
        return row["prompt_tps"], row["prompt_tps"] / row["prompt_ceiling_tps"]

    def generate(self, depths, kv, seed, *options):
        rows = self.run("--prompt", 0, "--generate", self.generate_count, "--depth", ",".join(map(str, depths)), "--kv-type", kv,
                        "--repetitions", self.repetitions, "--seed", seed, *options)
        return {row["depth"]: (row["generate_tps"], row["generate_tps"] / row["ceiling_tps"]) for row in rows}


def settings(arguments, weights, kv, batches):
    for flash, ubatch in itertools.product([True, False], batches):
        # llama.cpp reads quantized values by flash attention only.
        if flash or kv != "q8_0":
            yield {"weights": weights, "flash": flash, "ubatch": ubatch, "kv": kv, "threads": arguments.threads}


def choose(model, arguments, kv):
    """The best setting for each prompt and for each depth, and what was tried."""
    tried = {}  # of each work: [(tokens per second, setting)]
    for weights in arguments.weights:
        works = []
        for prompt in arguments.prompts:
            sizes = [n for n in arguments.ubatch if n <= max(prompt, min(arguments.ubatch))]
            works += [{**s, "prompt": prompt, "repetitions": 1, "seed": 1000 + prompt} for s in settings(arguments, weights, kv, sizes)]
        for setting in settings(arguments, weights, kv, [max(arguments.ubatch)]):
            works.append({**setting, "depths": arguments.depths, "generate": min(16, arguments.generate), "repetitions": 1, "seed": 999})
        for work, tps in zip(works, llama(model, weights, works) or []):
            for size, value in tps.items() if "depths" in work else [(work["prompt"], tps)]:
                tried.setdefault(("generate" if "depths" in work else "prompt", int(size)), []).append((value, work))
    if not tried:
        sys.exit("llama.cpp runs this model in no setting")
    log = [{"work": f"{work} {size}", "kv": kv, "setting": name_of(setting), "tps": value}
           for (work, size), values in tried.items() for value, setting in values]
    best = {key: max(values, key=lambda pair: pair[0])[1] for key, values in tried.items()}
    keys = ["weights", "flash", "ubatch", "kv", "threads"]
    return {key: {name: setting[name] for name in keys} for key, setting in best.items()}, log


def llama_round(model, chosen, arguments, seed):
    """Tokens per second of every work, each with its setting; works with the same weights in one process, depths with the same setting in one session."""
    works = {}
    for (work, size), setting in chosen.items():
        common = {**setting, "repetitions": arguments.repetitions, "seed": seed}
        if work == "prompt":
            works["prompt", size] = {**common, "prompt": size}
        else:
            group = works.setdefault(("generate", name_of(setting)), {**common, "generate": arguments.generate, "depths": []})
            group["depths"].append(size)
    result = {}
    for weights in {work["weights"] for work in works.values()}:
        mine = [work for work in works.values() if work["weights"] == weights]
        for work, tps in zip(mine, llama(model, weights, mine) or []):
            if "prompt" in work:
                result["prompt", work["prompt"]] = tps
            else:
                result.update({("generate", int(depth)): value for depth, value in tps.items()})
    return result


def measure(models, sigma, arguments):
    """One row for each work and type of the cache; generation with the full head apart."""
    rows, log = [], []
    for kv in arguments.kv:
        chosen, tried = choose(models["llama"], arguments, kv)
        log += tried
        mine = {}
        for (work, size), setting in chosen.items():
            for head in ["full", "screened"] if work == "generate" else [None]:
                row = {"work": work, "size": size, "kv": kv, "head": head, "setting": name_of(setting), "llama": [], "sigma": [], "shares": []}
                mine[work, size, head] = row
        rows += mine.values()
        for number in range(1, arguments.rounds + 1):
            theirs = llama_round(models["llama"], chosen, arguments, number)
            sigma.warm()
            ours = {("prompt", size, None): sigma.prompt(size, kv, number) for size in arguments.prompts}
            for head, options in [("full", ["--full-head"]), ("screened", [])]:
                for depth, value in sigma.generate(arguments.depths, kv, number, *options).items():
                    ours["generate", depth, head] = value
            for (work, size, head), row in mine.items():
                row["llama"].append(theirs.get((work, size)))
                row["sigma"].append(ours[work, size, head][0])
                row["shares"].append(ours[work, size, head][1])
            print(f"{kv}: round {number} of {arguments.rounds}", file=sys.stderr)
            for row in mine.values():
                print(f"  {row['work']} {row['size']} {row['head'] or ''}: {row['llama'][-1]} {row['sigma'][-1]:.1f} {row['shares'][-1]:.2f}", file=sys.stderr)
    for row in rows:
        values = [value for value in row["llama"] if value is not None]
        if not values:
            sys.exit(f"llama.cpp ran this setting once and never again: {row['setting']}")
        row["llama_median"] = statistics.median(values)
        row["sigma_median"] = statistics.median(row["sigma"])
        row["share_median"] = statistics.median(row["shares"])
        row["ratio_median"] = statistics.median(ours / theirs for ours, theirs in zip(row["sigma"], row["llama"]) if theirs is not None)
    return rows, log


def markdown(report):
    settings = "\n".join(f"- {report_pages.work_name(row)}, {row['kv']}: {row['setting']}" for row in report["rows"])
    return f"""`{report['model']}`. {report_pages.speed_block(report)}

Medians of the rounds, lowest and highest in brackets, in tokens/s. Ratio: the median of the rounds' ratios. Share: of the ceiling that
sigma-bench measures in the same run. llama.cpp's settings:

{settings}
"""


def numbers(text):
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="native (its experts' number is the same in all layers), or a qwen3moe GGUF")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sigma-bin", type=Path, default=ROOT / ".build/release")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    parser.add_argument("--prompts", type=numbers, default=[128, 512, 2048])
    parser.add_argument("--depths", type=numbers, default=[0, 1024, 4096, 16384])
    parser.add_argument("--generate", type=int, default=64)
    parser.add_argument("--kv", type=lambda text: text.split(","), default=["f16", "q8_0"])
    parser.add_argument("--weights", nargs="+", choices=WEIGHTS, default=WEIGHTS, help="of llama.cpp, to try")
    parser.add_argument("--ubatch", type=numbers, default=[512, 2048], help="of llama.cpp, tried for prompts")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=1)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    convert = arguments.sigma_bin / "sigma-convert"
    architecture = gguf.GGUFReader(arguments.model).fields["general.architecture"].contents()
    theirs, ours = arguments.folder / f"{arguments.model.stem}-qwen3moe.gguf", arguments.folder / f"{arguments.model.stem}-native.gguf"
    if architecture == "qwen3moe":
        theirs = arguments.model
    elif not theirs.exists():
        as_qwen3moe.make(arguments.model, theirs, str(convert))
    if not ours.exists():
        subprocess.run([convert, theirs, ours], check=True)
    rows, log = measure({"llama": theirs}, Sigma(arguments.sigma_bin, ours, arguments), arguments)
    report = {"model": arguments.model.name, "threads": arguments.threads, "machine": report_pages.machine(), "date": report_pages.today(), "llama_cpp": llama_cpp.__version__,
              "rounds": arguments.rounds, "repetitions": arguments.repetitions, "rows": rows, "tried": log}
    (arguments.folder / "speed.json").write_text(json.dumps(report, indent=1) + "\n")
    (arguments.folder / "speed.md").write_text(markdown(report))
    report_pages.speed_plot(report, arguments.folder / "speed.svg")
    print(markdown(report), end="")
