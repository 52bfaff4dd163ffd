"""Tables and plots of what compare_speed.py, compare_serving.py and ../expert-cache.py measured, and the pages that show them.

    python report.py                                       # docs/speed.json, serving.json and expert-cache.json -> the pages, again
    python report.py --speed results/speed.json            # takes new figures into docs/speed.json first
    python report.py --serving results/serving.json --machine "2 virtual cores (Zen 4, AVX-512 VNNI), 16 GB"
    python report.py --expert-cache results.json

docs/performance.md, docs/server.md and docs/expert-cache.md have a place for each, between <!-- speed --> and <!-- end of speed -->.
docs/speed.svg and docs/expert-cache.svg are drawn where matplotlib is installed. Python's library alone does the rest.
"""

import argparse
import datetime
import importlib.util
import json
import os
import statistics
import textwrap
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
# Tokens/s of sigma-serve over those of llama-server, by streams.
SERVING_TARGETS = {1: 2.2, 4: 2.8, 8: 3, 16: 3}


def machine():
    """This machine in words, for reports."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    known = dict(map(str.strip, line.split(":", 1)) for line in reversed(lines) if ":" in line)
    flags = known.get("flags", "").split()
    vectors = next((name for flag, name in [("avx512_vnni", "AVX-512 VNNI"), ("avx_vnni", "AVX2 VNNI"), ("avx2", "AVX2")] if flag in flags), "")
    vectors = os.environ.get("SIGMA_INSTRUCTION_SET", vectors)
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    name = known.get("model name", "unknown processor")
    return f"{count} processors ({name}{', ' + vectors if vectors else ''}), {memory:.0f} GB"


def today():
    return datetime.date.today().isoformat()


def spelled(date):
    day = datetime.date.fromisoformat(date)
    return f"{day.day} {day:%B %Y}"


def counted(count, thing):
    words = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}
    return f"{words.get(count, count)} {thing}{'' if count == 1 else 's'}"


# Speed


def work_name(row):
    if row["work"] == "prompt":
        return f"prompt of {row['size']}"
    context = f"{row['size']:,} tokens of context" if row["size"] else "empty context"
    return f"generation, {context}, {row['head']} head"


def median_and_range(row, engine):
    low, high = row.get(engine + "_range") or (lambda values: (min(values), max(values)))([v for v in row[engine] if v is not None])
    return f"{row[engine + '_median']:.1f} ({low:.1f} to {high:.1f})"


def speed_table(report):
    """One row for each work; a column for the type of keys and values only if there are several."""
    kinds = {row["kv"] for row in report["rows"]}
    header = ["work", *(["keys and values"] if len(kinds) > 1 else []), "llama.cpp", "Sigma", "ratio", "share"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in report["rows"]:
        cells = [work_name(row), *([row["kv"]] if len(kinds) > 1 else []), median_and_range(row, "llama"), median_and_range(row, "sigma"),
                 f"**{row['ratio_median']:.1f}**", f"{100 * row['share_median']:.0f} %"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def speed_block(report):
    words = (f"Measured on {spelled(report['date'])} on {report['machine']}, with {counted(report['threads'], 'thread')}, in "
             f"{counted(report['rounds'], 'round')}, against llama-cpp-python {report['llama_cpp']}:")
    return textwrap.fill(words, 120, break_long_words=False, break_on_hyphens=False) + "\n\n" + speed_table(report)


def speed_plot(report, path):
    pyplot = plotter()
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, work, title in zip(axes, ["prompt", "generate"], ["Prompt", "Generation"]):
        for engine, name, color in [("sigma", "Sigma", "#d1495b"), ("llama", "llama.cpp", "#30638e")]:
            for kv, style in [("f16", "-"), ("q8_0", "--"), ("f32", ":")]:
                rows = [row for row in report["rows"] if row["work"] == work and row["kv"] == kv and row["head"] != "full"]
                if rows:
                    places = range(len(rows))
                    axis.plot(places, [row[engine + "_median"] for row in rows], style, marker="o", color=color, label=f"{name}, {kv}")
                    axis.set_xticks(list(places), [str(row["size"]) for row in rows])
        axis.set_ylim(bottom=0)
        axis.set_title(title)
        axis.set_xlabel("tokens of the prompt" if work == "prompt" else "tokens of context")
        axis.set_ylabel("tokens/s")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


# Serving


def serving_table(report):
    """Medians of the rounds; the ratio is the median of the rounds' ratios."""
    rounds = report["rounds"]
    lines = ["| streams | llama-server, tokens/s | sigma-serve | ratio | target | first token, llama-server | sigma-serve |", "|" + "---|" * 7]
    for streams in sorted(map(int, rounds[0]["ours"])):
        def values(side, key):
            return [a_round[side][str(streams)][key] for a_round in rounds]

        ratios = sorted(ours / theirs for ours, theirs in zip(values("ours", "tps"), values("theirs", "tps")))
        between = f" ({ratios[0]:.2f} to {ratios[-1]:.2f})" if len(ratios) > 1 else ""
        cells = [str(streams), f"{statistics.median(values('theirs', 'tps')):.1f}", f"{statistics.median(values('ours', 'tps')):.1f}",
                 f"{statistics.median(ratios):.2f}{between}", str(SERVING_TARGETS.get(streams, "")),
                 f"{statistics.median(values('theirs', 'first')):.1f} s", f"{statistics.median(values('ours', 'first')):.1f} s"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def serving_block(report):
    words = (f"Beside llama-server on the same weights (`Benchmarks/peers/compare_serving.py`, {report['prompt']} random prompt tokens and "
             f"{report['answer']} answer tokens a stream, {report['machine']}, {spelled(report['date'])}, **{counted(len(report['rounds']), 'round')}**, "
             "[its numbers](serving.json)):")
    return textwrap.fill(words, 120, break_long_words=False, break_on_hyphens=False) + "\n\n" + serving_table(report)


# Expert cache


def generation(row):
    """With prediction as the engine decides, and without it."""
    return row["prediction_auto"], row["prediction_off"]


def expert_cache_table(report):
    lines = ["| limit | hit rate | tokens/s (without prediction) | share of the ceiling | prompt of 2,048 | llama.cpp | Sigma / llama.cpp |", "|" + "---|" * 7]
    for row in report["rows"]:
        auto, off = generation(row)
        share = 100 * auto["generate_tps"] / auto["ceiling_tps"]
        disk = f" at {auto['disk_bandwidth_gbs']:.2f} GB/s" if auto.get("disk_bandwidth_gbs") else ""
        theirs = row["llama"].get("tokens_per_second")
        cells = [f"{row['limit_bytes'] / (1 << 30):.0f} GiB", f"{auto['hit_rate']:.1%}", f"**{auto['generate_tps']:.1f}** ({off['generate_tps']:.1f})",
                 f"{share:.0f} %{disk}", f"{row['prompt']['prompt_tps']:.0f}", f"{theirs:.2f}" if theirs else "no result",
                 f"**{auto['generate_tps'] / theirs:.1f}**" if theirs else ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def expert_cache_block(report):
    words = f"On {report['machine']}, {spelled(report['date'])} ([all numbers](expert-cache.json)):"
    return textwrap.fill(words, 120, break_long_words=False, break_on_hyphens=False) + "\n\n" + expert_cache_table(report)


def expert_cache_plot(report, path):
    pyplot = plotter()
    figure, axis = pyplot.subplots(figsize=(7, 3.4), layout="constrained")
    rows = report["rows"]
    sizes = [row["limit_bytes"] / (1 << 30) for row in rows]
    axis.plot(sizes, [generation(row)[0]["generate_tps"] for row in rows], "-", marker="o", color="#d1495b", label="Sigma")
    theirs = [(size, row["llama"]["tokens_per_second"]) for size, row in zip(sizes, rows) if "tokens_per_second" in row["llama"]]
    axis.plot(*zip(*theirs), "-", marker="o", color="#30638e", label="llama.cpp")
    for size, row in zip(sizes, rows):
        speed = generation(row)[0]["generate_tps"]
        axis.annotate(f"{speed:.0f}", (size, speed), textcoords="offset points", xytext=(0, 6), ha="center")
    for size, speed in theirs:
        axis.annotate(f"{speed:.1f}", (size, speed), textcoords="offset points", xytext=(0, 6), ha="center")
    axis.set_ylim(bottom=0)
    axis.set_title("20B parameters in 4.5 bits: 11 GB of weights", fontsize=10)
    axis.set_xlabel("memory limit of the process, GiB")
    axis.set_ylabel("generated tokens/s")
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


# Pages


def plotter():
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "sigma", "svg.fonttype": "none", "font.size": 9})
    import matplotlib.pyplot as pyplot

    return pyplot


def replace(page, marker, content):
    text = page.read_text()
    begin, end = f"<!-- {marker} -->\n", f"<!-- end of {marker} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise SystemExit(f"{page} must have {begin.strip()} and {end} once each")
    before, rest = text.split(begin)
    page.write_text(before + begin + content + "\n" + end + rest.split(end)[1])
    print(page.relative_to(DOCS.parent))


def take(name, path, words):
    """The report in docs, after the one in `path` has become it."""
    target = DOCS / f"{name}.json"
    report = json.loads((path or target).read_text())
    if words:
        report["machine"] = words
    if path or words:
        target.write_text(json.dumps(report, indent=1) + "\n")
        print(target.relative_to(DOCS.parent))
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", type=Path, help="speed.json of compare_speed.py")
    parser.add_argument("--serving", type=Path, help="serving.json of compare_serving.py")
    parser.add_argument("--expert-cache", type=Path, help="what ../expert-cache.py wrote, with --predictions off,auto and --llama")
    parser.add_argument("--machine", help="the machine in words, instead of what the script wrote, for the files that are given")
    arguments = parser.parse_args()
    speed = take("speed", arguments.speed, arguments.machine if arguments.speed else None)
    serving = take("serving", arguments.serving, arguments.machine if arguments.serving else None)
    replace(DOCS / "performance.md", "speed", speed_block(speed))
    replace(DOCS / "server.md", "serving", serving_block(serving))
    cache = take("expert-cache", arguments.expert_cache, arguments.machine if arguments.expert_cache else None)
    replace(DOCS / "expert-cache.md", "expert-cache", expert_cache_block(cache))
    if importlib.util.find_spec("matplotlib"):
        speed_plot(speed, DOCS / "speed.svg")
        expert_cache_plot(cache, DOCS / "expert-cache.svg")
        print("docs/speed.svg, docs/expert-cache.svg")
    else:
        print("the plots are as they were: matplotlib is not installed (Benchmarks/peers/requirements.txt)")


if __name__ == "__main__":
    main()
