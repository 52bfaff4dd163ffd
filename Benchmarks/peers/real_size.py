"""Qwen3-30B-A3B's shape with random weights, here and in llama.cpp: conversion, prompt, generation, and generation in little memory.

    pip install -r Benchmarks/peers/requirements.txt
    sudo python Benchmarks/peers/real_size.py FOLDER [--mix Q4_K_M] [--sizes 4,8,12,16] [--only convert,speed,memory]

FOLDER gets a GGUF file (Q4_K_M: 18.6 GB), which is kept and used again, and a model file of it (18.7 GB), which is deleted before it is made: that is the
peak of the disk. Control groups (memory) need a superuser; without one, leave `memory` out. Wants a machine that does nothing else, for about
25 minutes. Writes FOLDER/MIX/real-size.json and real-size.md, after each part.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import qwen3moe_gguf

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def run(*command):
    print(" ".join(map(str, command)), file=sys.stderr, flush=True)
    subprocess.run([str(part) for part in command], check=True, stdout=sys.stderr)


def convert(binaries, source, native):
    """Seconds and the largest memory; with the source read from the disk."""
    native.unlink(missing_ok=True)
    needed, free = 1.02 * source.stat().st_size, shutil.disk_usage(native.parent).free
    if free < needed:
        sys.exit(f"{native}: needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free")
    drop(source)
    start = time.monotonic()
    run(binaries / "sigma-convert", source, native)
    seconds = time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
    return {"seconds": seconds, "bytes": native.stat().st_size, "source_bytes": source.stat().st_size, "peak_memory_bytes": peak}


def drop(path):
    """From the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def markdown(report, results):
    lines = []
    if "convert" in report:
        c = report["convert"]
        lines.append(f"Conversion: {c['source_bytes'] / 1e9:.1f} GB in {c['seconds']:.0f} s, to {c['bytes'] / 1e9:.1f} GB, with {c['peak_memory_bytes'] / 1e6:.0f} MB of memory.\n")
    if "speed" in report:
        lines.append((results / "speed.md").read_text())
    if "memory" in report:
        lines += ["| limit | hit rate | tokens/s | share of the ceiling | prompt of 512, tokens/s | llama.cpp, tokens/s | Sigma / llama.cpp |", "|---|---|---|---|---|---|---|"]
        for row in report["memory"]:
            ours, theirs, prompt = row["prediction_auto"], row["llama"], row.get("prompt", {})
            if "error" in ours:
                lines.append(f"| {row['limit_bytes'] >> 30} GiB | {ours['error']} | | | | | |")
                continue
            speed, other = ours["generate_tps"], theirs.get("mean")
            lines.append(
                f"| {row['limit_bytes'] >> 30} GiB | {ours['hit_rate'] or 1:.1%} | {speed:.2f} | {speed / ours['ceiling_tps']:.0%} | {prompt.get('prompt_tps', 0):.1f} "
                f"| {f'{other:.2f}' if other else theirs.get('error')} | {f'{speed / other:.1f}' if other else ''} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mix", choices=qwen3moe_gguf.MIXES, default="Q4_K_M")
    parser.add_argument("--sizes", default="4,8,12,16", help="memory limits in GiB")
    parser.add_argument("--only", type=lambda text: text.split(","), default=["convert", "speed", "memory"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--weights", nargs="+", default=["repacked", "plain"], help="of llama.cpp, as in compare_speed.py")
    parser.add_argument("--sigma-bin", type=Path, default=ROOT / ".build/release")
    arguments = parser.parse_args()
    folder = arguments.folder
    source, results = folder / f"qwen3-30b-a3b-{arguments.mix}.gguf", folder / arguments.mix
    native = results / f"{source.stem}-native.gguf"  # where compare_speed.py looks for it
    results.mkdir(parents=True, exist_ok=True)
    if not source.exists():
        native.unlink(missing_ok=True)
        run(sys.executable, HERE / "qwen3moe_gguf.py", source, "--type", arguments.mix, "--shape", "qwen3-30b-a3b")
    path = results / "real-size.json"
    report = json.loads(path.read_text()) if path.exists() else {}

    def save():
        path.write_text(json.dumps(report, indent=1) + "\n")

    if "convert" in arguments.only or not native.exists():
        report["convert"] = convert(arguments.sigma_bin, source, native)
        save()
    if "speed" in arguments.only:
        run(sys.executable, HERE / "compare_speed.py", source, results, "--sigma-bin", arguments.sigma_bin, "--prompts", 512, "--depths", "0,1024",
            "--generate", 32, "--kv", "f16", "--ubatch", 512, "--rounds", arguments.rounds, "--weights", *arguments.weights)
        report["speed"] = json.loads((results / "speed.json").read_text())
        save()
    if "memory" in arguments.only:
        run(sys.executable, ROOT / "Benchmarks/expert-cache.py", native, "--llama", source, "--bin", arguments.sigma_bin, "--sizes", arguments.sizes,
            "--predictions", "auto", "--without-usage", "--prompt", 512, "--generate", 32, "--repetitions", 1, "--llama-warm-up", 8, "--llama-tokens", 8,
            "--llama-timeout", 240, "--output", results / "memory.json")
        report["memory"] = json.loads((results / "memory.json").read_text())["rows"]
        save()
    text = markdown(report, results)
    (results / "real-size.md").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
