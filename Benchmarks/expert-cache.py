"""The expert cache in control groups of several sizes, beside llama.cpp in the same ones.

    sudo python expert-cache.py MODEL.gguf [--llama QWEN3MOE.gguf] [--sizes 3,4,6,8] [--output results.json]

Needs a control group tree for memory that may be written to (version 1 or 2). For every size:

1. `sigma-bench` inside a group with that limit, prediction off and on: tokens/s, ceiling, hits; and the group's reclaim counters over the run.
2. Unless --without-usage: the same with the budget alone, in a fresh group without a limit, the model's pages dropped before: the group's highest usage.
3. With --llama: llama.cpp (llama-cpp-python) in a group with that limit: memory-mapped, no repacking, after --llama-warm-up tokens; where its whole
   file fits, after 512, which use nearly all experts.

`--synthetic` models have random weights; any model that both engines can load will do.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(ROOT / "Benchmarks/peers"))

import report as report_pages  # noqa: E402
from control_group import Group  # noqa: E402

GIB = 1 << 30


def drop_pages(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def bench(arguments, group, memory, *options):
    drop_pages(arguments.model)
    result = group.run([
        arguments.bin / "sigma-bench", "--model", arguments.model, "--memory", f"{memory >> 20}MiB", "--format", "json",
        "--repetitions", str(arguments.repetitions), "--threads", str(arguments.threads), *options])
    if result.returncode != 0:
        return {"error": result.stderr.strip()}
    return json.loads(result.stdout)[0]


def ours(arguments, size):
    row = {"limit_bytes": size}
    # Room for the page tables and what the kernel keeps for the group.
    memory = size - (64 << 20)
    for prediction in arguments.predictions:
        group = Group("sigma", size)
        row[f"prediction_{prediction}"] = bench(
            arguments, group, memory, "--prompt", "0", "--generate", str(arguments.generate), "--expert-prediction", prediction)
        row[f"reclaims_{prediction}"] = group.reclaims
        group.remove()
    if not arguments.without_usage:
        group = Group("sigma")
        row["unlimited"] = bench(
            arguments, group, memory, "--prompt", "0", "--generate", str(arguments.generate), "--expert-prediction", "off")
        row["highest_usage_bytes"] = group.highest_usage
        row["budget_bytes"] = memory
        group.remove()
    if arguments.prompt:
        group = Group("sigma", size)
        row["prompt"] = bench(arguments, group, memory, "--prompt", str(arguments.prompt), "--generate", "0")
        group.remove()
    return row


LLAMA = """
import ctypes, json, sys, time, random
import llama_cpp
path, warm_up, count, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
p = llama_cpp.llama_model_default_params()
p.use_mmap, p.use_mlock, p.use_extra_bufts = True, False, False
model = llama_cpp.llama_model_load_from_file(path.encode(), p)
c = llama_cpp.llama_context_default_params()
c.n_ctx, c.n_batch, c.n_ubatch, c.n_threads, c.n_threads_batch = warm_up + count + 8, 8, 8, threads, threads
context = llama_cpp.llama_init_from_model(model, c)
size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
random.seed(1)
def step():
    token = (llama_cpp.llama_token * 1)(random.randrange(size))
    assert llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(token, 1)) == 0
for _ in range(warm_up): step()
times = []
for _ in range(count):
    start = time.monotonic(); step(); times.append(time.monotonic() - start)
times.sort()
print(json.dumps({"tokens_per_second": 1 / times[len(times) // 2], "mean": len(times) / sum(times)}))
"""


def theirs(arguments, size, warm_up):
    drop_pages(arguments.llama)
    group = Group("llama", size)
    try:
        result = group.run(
            [sys.executable, "-c", LLAMA, arguments.llama, str(warm_up), str(arguments.llama_tokens), str(arguments.threads)],
            timeout=arguments.llama_timeout)
        if result.returncode != 0:
            return {"error": result.stderr.strip()[-300:], "code": result.returncode}
        return json.loads(result.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"error": f"no result in {arguments.llama_timeout} s"}
    finally:
        group.remove()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama", type=Path, help="the same shape as a qwen3moe GGUF (sigma-convert --plain-gguf)")
    parser.add_argument("--bin", type=Path, default=ROOT / ".build/release")
    parser.add_argument("--sizes", default="3,4,6,8", help="limits in GiB")
    parser.add_argument("--generate", type=int, default=64)
    parser.add_argument("--prompt", type=int, default=2048, help="0: none")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--predictions", type=lambda text: text.split(","), default=["off", "on"], help="off, on or auto")
    parser.add_argument("--without-usage", action="store_true", help="leave step 2 out")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of both engines")
    parser.add_argument("--llama-warm-up", type=int, default=16)
    parser.add_argument("--llama-tokens", type=int, default=8)
    parser.add_argument("--llama-timeout", type=int, default=600)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    rows = []
    for size in [int(float(text) * GIB) for text in arguments.sizes.split(",")]:
        row = ours(arguments, size)
        if arguments.llama:
            fits = size > arguments.llama.stat().st_size + GIB
            row["llama"] = theirs(arguments, size, 512 if fits else arguments.llama_warm_up)
        rows.append(row)
        print(table_line(row), flush=True)
        if arguments.output:  # for peers/report.py; after each row, so that nothing is lost with a later one
            report = {"date": report_pages.today(), "machine": report_pages.machine(), "rows": rows}
            arguments.output.write_text(json.dumps(report, indent=1) + "\n")


def table_line(row):
    parts = [f"{row['limit_bytes'] / GIB:.1f} GiB"]
    for prediction in [key.removeprefix("prediction_") for key in row if key.startswith("prediction_")]:
        result = row[f"prediction_{prediction}"]
        if "error" in result:
            parts.append(f"prediction {prediction}: {result['error']}")
            continue
        speed, ceiling = result["generate_tps"], result["ceiling_tps"]
        parts.append(f"prediction {prediction}: {speed:.1f} tokens/s, {speed / ceiling:.0%} of {ceiling:.1f}, hits {result['hit_rate']:.1%}, "
                     f"disk {result['disk_bandwidth_gbs'] or 0:.2f} GB/s, reclaims {row[f'reclaims_{prediction}']}")
    if "highest_usage_bytes" in row:
        parts.append(f"highest usage {row['highest_usage_bytes'] / GIB:.2f} of {row['budget_bytes'] / GIB:.2f} GiB")
    if "prompt" in row and "error" not in row["prompt"]:
        parts.append(f"prompt {row['prompt']['prompt_tps']:.0f} tokens/s, {row['prompt']['prompt_expert_bytes'] / 1e9:.2f} GB of experts read")
    if "llama" in row:
        parts.append(f"llama.cpp {row['llama']}")
    return "; ".join(parts)


if __name__ == "__main__":
    main()
