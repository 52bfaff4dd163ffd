"""What a long prompt does to everybody else: /health and /metrics, the pauses of other streams, and both speeds.

    python3 Tests/ServerCheck/check_pauses.py --model l8.gguf [--prompt 32000] [--streams 4]

The model is of the real shape with 8 layers: sigma-convert --synthetic sigma-moe-tiny l8.gguf --layers 8 --type q4_0
"""

import argparse
import asyncio
import json
import random
import time

from serving import ROOT, metrics, percentile, send, serving, stream


def prompt(count, seed):
    generator = random.Random(seed)
    return [generator.randrange(100, 100_000) for _ in range(count)]


async def measure(port, arguments):
    async def tokens(seed, count):
        """When each token of a stream came."""
        body = {"prompt": prompt(50, seed), "max_tokens": count, "temperature": 1, "seed": seed}
        return [moment for moment, data in await stream(port, "/v1/completions", body) if data != "[DONE]"]

    # Alone: the streams without the prompt, and the prompt without the streams.
    await tokens(1, 20)
    alone = await asyncio.gather(*(tokens(10 + index, 200) for index in range(arguments.streams)))
    rate_alone = sum(len(times) - 1 for times in alone) / (max(times[-1] for times in alone) - min(times[0] for times in alone))
    usual = percentile([b - a for times in alone for a, b in zip(times, times[1:])], 0.5)
    long = {"prompt": prompt(arguments.prompt, 5), "max_tokens": 1, "temperature": 0}
    begin = time.monotonic()
    await send(port, "POST", "/v1/completions", {**long, "cache_salt": "a"})
    seconds_alone = time.monotonic() - begin

    # Together.
    over = asyncio.Event()
    page_times = {"/health": [], "/metrics": []}

    async def pages():
        while not over.is_set():
            for path in page_times:
                begin = time.monotonic()
                await send(port, "GET", path)
                page_times[path].append(time.monotonic() - begin)
            await asyncio.sleep(0.02)

    async def endless(seed):
        times = []
        while not over.is_set():
            times.append(await tokens(seed, 400))
            seed += 1000
        return times

    watching = asyncio.create_task(pages())
    streams = [asyncio.create_task(endless(100 + index)) for index in range(arguments.streams)]
    await asyncio.sleep(2)
    begin = time.monotonic()
    await send(port, "POST", "/v1/completions", {**long, "cache_salt": "b"})
    end = time.monotonic()
    over.set()
    runs = [await task for task in streams]
    await watching
    pauses = [b - a for times in runs for run in times for a, b in zip(run, run[1:]) if begin <= a and b <= end]
    rate = len(pauses) / (end - begin)
    return {
        "prompt_tokens": arguments.prompt, "streams": arguments.streams,
        "health_ms_p99": 1000 * percentile(page_times["/health"], 0.99),
        "metrics_ms_p99": 1000 * percentile(page_times["/metrics"], 0.99), "page_samples": len(page_times["/health"]),
        "usual_pause_ms": 1000 * usual, "pause_ms_p99": 1000 * percentile(pauses, 0.99), "pause_ms_most": 1000 * max(pauses),
        "streams_tps_alone": rate_alone, "streams_tps": rate, "streams_share": rate / rate_alone,
        "prompt_tps_alone": arguments.prompt / seconds_alone, "prompt_tps": arguments.prompt / (end - begin),
        "prompt_share": seconds_alone / (end - begin),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompt", type=int, default=32_000)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--binary", default=str(ROOT / ".build/release/sigma-serve"))
    arguments = parser.parse_args()
    with serving(arguments.model, binary=arguments.binary) as server:
        result = asyncio.run(measure(server.port, arguments))
    print(json.dumps({key: round(value, 3) for key, value in result.items()}, indent=1))


if __name__ == "__main__":
    main()
