"""The speed of llama.cpp and of Sigma on the same weights, on this machine.

Makes a qwen3moe GGUF of a native model (as_qwen3moe.py) and a native model of that, so that both have the same bytes. First every setting of llama.cpp is tried
once for each work (flash attention or not; plain and repacked weights, the latter with and without AMX; sizes of the physical batch) and the fastest kept; then
rounds of llama.cpp and Sigma in turn. A round's value is the mean of its repetitions behind one that is not counted; results are medians of rounds.

    sigma-convert --synthetic sigma-moe-tiny synthetic.gguf --type q4_0
    python compare_speed.py synthetic.gguf results

Writes FOLDER/speed.md, speed.json and speed.svg. The models between (each as large as the source) are kept in FOLDER; they are used again.
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

if any(importlib.util.find_spec(name) is None for name in ["llama_cpp", "gguf", "matplotlib", "numpy"]):
    subprocess.run([sys.executable, "-m", "pip", "install", "-r", str(HERE / "requirements.txt")], check=True)
    os.execv(sys.executable, [sys.executable, *sys.argv])

import gguf  # noqa: E402
import llama_cpp  # noqa: E402

import as_qwen3moe  # noqa: E402

WEIGHTS = ["repacked", "repacked, no AMX", "plain"]


def llama(model, setting):
    """Tokens per second, or None where the setting crashes or is refused."""
    command = [sys.executable, str(HERE / "llama_speed.py"), str(model), json.dumps(setting)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode == 0:
        return json.loads(result.stdout.splitlines()[-1])["tps"]
    reason = f"signal {-result.returncode}" if result.returncode < 0 else result.stderr.strip().splitlines()[-1:]
    print(f"  not measured ({reason}): {name_of(setting)}", file=sys.stderr)
    return None


def name_of(setting):
    flash = "flash attention" if setting["flash"] else "no flash attention"
    return f"{setting['weights']}, {flash}, ubatch {setting['ubatch']}"


class Sigma:
    def __init__(self, folder, model, threads):
        self.command = [str(folder / "sigma-bench"), "--model", str(model), "--threads", str(threads), "--format", "json"]

    def run(self, *options):
        result = subprocess.run([*self.command, *map(str, options)], capture_output=True, text=True)
        if result.returncode != 0:
            sys.exit(f"sigma-bench: {result.stderr}")
        return json.loads(result.stdout)

    def prompt(self, count, kv, repetitions, seed):
        rows = self.run("--prompt", count, "--generate", 0, "--kv-type", kv, "--repetitions", repetitions, "--seed", seed)
        return rows[0]["prompt_tps"]

    def generate(self, count, depths, kv, repetitions, seed):
        rows = self.run("--prompt", 0, "--generate", count, "--depth", ",".join(map(str, depths)), "--kv-type", kv,
                        "--repetitions", repetitions, "--seed", seed)
        return {str(row["depth"]): row["generate_tps"] for row in rows}


def settings(arguments, kv, batches):
    for weights, flash, ubatch in itertools.product(WEIGHTS, [True, False], batches):
        # llama.cpp reads quantized values by flash attention only.
        if flash or kv != "q8_0":
            yield {"weights": weights, "flash": flash, "ubatch": ubatch, "kv": kv, "threads": arguments.threads}


def best(candidates, tried, key):
    """The setting with the highest of the values that `key` finds."""
    working = [(key(tps), setting) for setting, tps in zip(candidates, tried) if tps is not None]
    if not working:
        sys.exit("llama.cpp runs this model in no setting")
    return max(working, key=lambda pair: pair[0])[1]


def choose(model, arguments, kv):
    """The best setting for each prompt and for each depth, and what was tried."""
    chosen, log = {}, []
    for prompt in arguments.prompts:
        candidates = list(settings(arguments, kv, [n for n in arguments.ubatch if n <= max(prompt, min(arguments.ubatch))]))
        tried = [llama(model, {**s, "prompt": prompt, "repetitions": 1, "seed": 1000 + prompt}) for s in candidates]
        log += [{"work": f"prompt {prompt}", "kv": kv, "setting": name_of(s), "tps": t} for s, t in zip(candidates, tried)]
        chosen["prompt", prompt] = best(candidates, tried, lambda tps: tps)
    candidates = list(settings(arguments, kv, [max(arguments.ubatch)]))
    work = {"depths": arguments.depths, "generate": min(16, arguments.generate), "repetitions": 1, "seed": 999}
    tried = [llama(model, {**s, **work}) for s in candidates]
    log += [{"work": "generate", "kv": kv, "setting": name_of(s), "tps": t} for s, t in zip(candidates, tried)]
    for depth in arguments.depths:
        chosen["generate", depth] = best(candidates, tried, lambda tps: tps[str(depth)])
    return chosen, log


def measure(models, sigma, arguments):
    """One row for each work and type of the cache."""
    rows, log = [], []
    for kv in arguments.kv:
        chosen, tried = choose(models["llama"], arguments, kv)
        log += tried
        for (work, size), setting in chosen.items():
            rows.append({"work": work, "size": size, "kv": kv, "setting": name_of(setting), "llama": [], "sigma": []})
        for round_number in range(arguments.rounds):
            common = {"repetitions": arguments.repetitions, "seed": round_number + 1}
            mine = [row for row in rows if row["kv"] == kv]
            for row in (row for row in mine if row["work"] == "prompt"):
                row["llama"].append(llama(models["llama"], {**chosen["prompt", row["size"]], **common, "prompt": row["size"]}))
                row["sigma"].append(sigma.prompt(row["size"], kv, arguments.repetitions, round_number + 1))
            # Depths with the same setting in one process, which reads the long prompt once.
            by_setting = {}
            for row in (row for row in mine if row["work"] == "generate"):
                by_setting.setdefault(row["setting"], []).append(row)
            for group in by_setting.values():
                depths = [row["size"] for row in group]
                setting = {**chosen["generate", depths[0]], **common, "depths": depths, "generate": arguments.generate}
                theirs = llama(models["llama"], setting)
                ours = sigma.generate(arguments.generate, depths, kv, arguments.repetitions, round_number + 1)
                for row in group:
                    row["llama"].append(theirs and theirs[str(row["size"])])
                    row["sigma"].append(ours[str(row["size"])])
            print(f"{kv}: round {round_number + 1} of {arguments.rounds}", file=sys.stderr)
    for row in rows:
        for engine in ["llama", "sigma"]:
            values = [value for value in row[engine] if value is not None]
            if not values:
                sys.exit(f"llama.cpp ran this setting once and never again: {row['setting']}")
            row[engine + "_median"] = statistics.median(values)
    return rows, log


def markdown(report):
    lines = [f"`{report['model']}`, {report['threads']} threads, {report['processor']}, llama-cpp-python {report['llama_cpp']}; medians of "
             f"{report['rounds']} rounds, lowest and highest in brackets; tokens/s", "",
             "| work | cache | llama.cpp | Sigma | ratio | llama.cpp's setting |", "|---|---|---|---|---|---|"]
    for row in report["rows"]:
        work = f"prompt of {row['size']}" if row["work"] == "prompt" else f"generation behind {row['size']}"
        cells = []
        for engine in ["llama", "sigma"]:
            values = [value for value in row[engine] if value is not None]
            cells.append(f"{row[engine + '_median']:.1f} ({min(values):.1f} to {max(values):.1f})")
        ratio = row["sigma_median"] / row["llama_median"]
        lines.append(f"| {work} | {row['kv']} | {cells[0]} | {cells[1]} | {ratio:.2f} | {row['setting']} |")
    return "\n".join(lines) + "\n"


def plot(report, path):
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "sigma", "svg.fonttype": "none", "font.size": 9})
    import matplotlib.pyplot as pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, work, title in zip(axes, ["prompt", "generate"], ["Prompt", "Generation"]):
        for engine, name, color in [("sigma", "Sigma", "#d1495b"), ("llama", "llama.cpp", "#30638e")]:
            for kv, style in [("f16", "-"), ("q8_0", "--"), ("f32", ":")]:
                rows = [row for row in report["rows"] if row["work"] == work and row["kv"] == kv]
                if rows:
                    places = range(len(rows))
                    axis.plot(places, [row[engine + "_median"] for row in rows], style, marker="o", color=color, label=f"{name}, {kv}")
                    axis.set_xticks(list(places), [str(row["size"]) for row in rows])
        axis.set_ylim(bottom=0)
        axis.set_title(title)
        axis.set_xlabel("tokens of the prompt" if work == "prompt" else "tokens before")
        axis.set_ylabel("tokens/s")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return "unknown processor"


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
    parser.add_argument("--ubatch", type=numbers, default=[512, 2048], help="of llama.cpp, tried for prompts")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repetitions", type=int, default=1)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    convert = arguments.sigma_bin / "sigma-convert"
    architecture = gguf.GGUFReader(arguments.model).fields["general.architecture"].contents()
    theirs, ours = arguments.folder / "qwen3moe.gguf", arguments.folder / "native.gguf"
    if architecture == "qwen3moe":
        theirs = arguments.model
    elif not theirs.exists():
        as_qwen3moe.make(arguments.model, theirs, str(convert))
    if not ours.exists():
        subprocess.run([convert, theirs, ours], check=True)
    rows, log = measure({"llama": theirs}, Sigma(arguments.sigma_bin, ours, arguments.threads), arguments)
    report = {"model": arguments.model.name, "threads": arguments.threads, "processor": processor(), "llama_cpp": llama_cpp.__version__,
              "rounds": arguments.rounds, "repetitions": arguments.repetitions, "rows": rows, "tried": log}
    (arguments.folder / "speed.json").write_text(json.dumps(report, indent=1) + "\n")
    (arguments.folder / "speed.md").write_text(markdown(report))
    plot(report, arguments.folder / "speed.svg")
    print(markdown(report), end="")
