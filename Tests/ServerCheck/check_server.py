"""Long checks of sigma-serve: the same bytes as sigma-run, clients that vanish, overload, hostile bodies, memory.

    python3 Tests/ServerCheck/check_server.py [CHECK ...] [--model Models/demo.gguf] [--scale 1.0]

Every check prints a line and raises where something is wrong. `--scale 0.1` does a tenth of each.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time

from serving import ROOT, idle, metrics, percentile, request_bytes, send, serving, stream

RUN = ROOT / ".build/release/sigma-run"


def question(index):
    return f"What is {100 + index * 37 % 900} + {11 + index * 53 % 900}?"


def settings(index):
    temperature = (0, 0.8)[index % 2]
    return {"temperature": temperature, "seed": index, "max_tokens": 40, "thinking_budget": 60}


def chat(index, **more):
    return {"messages": [{"role": "user", "content": question(index)}], **settings(index), **more}


def answer_of_run(model, index):
    """What sigma-run says: thinking and answer."""
    options = settings(index)
    lines = subprocess.run(
        [RUN, "--model", model, "--json", "--temperature", str(options["temperature"]), "--seed", str(index),
         "--max-tokens", "40", "--thinking-budget", "60", "--prompt", question(index)],
        capture_output=True, text=True, check=True).stdout.splitlines()
    texts = {"thinking": "", "answer": ""}
    for line in map(json.loads, lines):
        if line["event"] == "token":
            texts[line["phase"]] += line["text"]
    return texts


def check_same_bytes(model, scale):
    """Requests over cold, warm, partly evicted prefixes, in company and alone, with other pieces and threads."""
    distinct = max(4, int(50 * scale))
    expected = {index: answer_of_run(model, index) for index in range(distinct)}
    total = max(40, int(2000 * scale))
    configurations = [((), 1), ((), 2), ((), 8), ((), 16), (("--threads", 1), 4), (("--prefix-cache", "2MiB"), 8),
                      (("--parallel", 3), 16), (("--prefix-cache", "0MiB"), 8)]
    done = found = 0

    async def run(port, company, count, offset):
        nonlocal done
        places = asyncio.Semaphore(company)

        async def one(number):
            nonlocal done
            index = (number + offset) % distinct
            more = [{}, {"logprobs": True, "top_logprobs": 5}, {"n": 1}][number % 3]
            async with places:
                if number % 2:
                    status, _, body = await send(port, "POST", "/v1/chat/completions", chat(index, **more))
                    assert status == 200, body
                    message = json.loads(body)["choices"][0]["message"]
                    got = {"thinking": message.get("reasoning_content", ""), "answer": message["content"]}
                else:
                    got = {"thinking": "", "answer": ""}
                    for _, data in await stream(port, "/v1/chat/completions", chat(index, **more)):
                        if data != "[DONE]":
                            for choice in json.loads(data)["choices"]:
                                got["thinking"] += choice["delta"].get("reasoning_content", "")
                                got["answer"] += choice["delta"].get("content", "")
            want = expected[index]
            # What ends a thinking that was cut is text here, and no token of sigma-run's.
            same = got["thinking"] == want["thinking"] or (
                got["thinking"].startswith(want["thinking"]) and got["thinking"].endswith("I have to stop thinking here.\n"))
            assert got["answer"] == want["answer"] and same, (index, company, got, want)
            done += 1

        await asyncio.gather(*(one(number) for number in range(count)))

    for number, (options, company) in enumerate(configurations):
        with serving(model, *options) as server:
            asyncio.run(run(server.port, company, total // len(configurations), number))
            found += asyncio.run(metrics(server.port))["vllm:prefix_cache_hits"]
    assert found > 0
    return f"{done} answers, each sigma-run's bytes; {int(found)} tokens came from kept prefixes"


def endless(index, stops):
    return {"prompt": f"{index} and", "temperature": 1, "top_k": 20, "seed": index, "max_tokens": 1_000_000,
            "logit_bias": {str(stop): -100 for stop in stops}}


def stop_tokens(port):
    """What ends an answer of the demo model."""
    ends = asyncio.run(send(port, "POST", "/tokenize", {"prompt": "<|endoftext|><|end|>", "add_special_tokens": False}))
    return json.loads(ends[2])["tokens"]


def check_aborts(model, scale):
    """Streams aborted at random moments among others that go on."""
    count = max(50, int(1000 * scale))
    with serving(model, "--queue", 4000) as server:
        stops = stop_tokens(server.port)
        port = server.port
        whole = asyncio.run(stream(port, "/v1/chat/completions", chat(1)))
        alone = [json.loads(data)["choices"] for _, data in whole if data != "[DONE]"]

        async def survivor():
            events = await stream(port, "/v1/chat/completions", chat(1))
            assert [json.loads(data)["choices"] for _, data in events if data != "[DONE]"] == alone

        async def aborted(index):
            await asyncio.sleep(random.random() * 2)
            way = index % 4
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request_bytes("POST", "/v1/completions", {**endless(index, stops), "stream": way != 3}))
            await writer.drain()
            if way == 1:
                await asyncio.wait_for(reader.read(1), 120)
            await asyncio.sleep(random.random() * 0.5)
            if way == 2:
                writer.transport.abort()
            else:
                writer.close()

        async def run():
            limit = asyncio.Semaphore(200)

            async def limited(work):
                async with limit:
                    await work

            before = server.resident()
            for part in range(4):
                work = [limited(aborted(index)) for index in range(part * count // 4, (part + 1) * count // 4)]
                work += [limited(survivor()) for _ in range(count // 80)]
                random.shuffle(work)
                await asyncio.gather(*work)
            seconds = await idle(port)
            return before, server.resident(), seconds

        before, after, seconds = asyncio.run(run())
        assert after - before < 64 << 20, (before, after)
        return (f"{count} aborted streams, {count // 80 * 4} others unchanged; no work {seconds * 1000:.0f} ms later; "
                f"memory {before >> 20} -> {after >> 20} MiB")


def check_overload(model, scale):
    """Ten times the limit at once: the rest is refused at once, and everything ends."""
    with serving(model, "--parallel", 2, "--queue", 10) as server:
        port = server.port

        async def one(index):
            begin = time.monotonic()
            status, headers, body = await send(port, "POST", "/v1/chat/completions", chat(index))
            assert status in (200, 429), body
            if status == 429:
                assert int(headers["retry-after"]) >= 1
            return status, time.monotonic() - begin

        async def run():
            results = await asyncio.gather(*(one(index) for index in range(120)))
            await idle(port)
            return results

        stops = stop_tokens(port)
        results = asyncio.run(run())
        refused = [seconds for status, seconds in results if status == 429]
        served = sum(status == 200 for status, _ in results)
        assert refused and served >= 12, (served, len(refused))

        async def beyond():
            """The request beyond the limit, alone in its moment."""
            holders = [asyncio.create_task(stream(port, "/v1/completions", endless(index, stops))) for index in range(12)]
            while (await metrics(port))["vllm:num_requests_waiting"] < 10:
                await asyncio.sleep(0.01)
            times = []
            for index in range(50):
                status, seconds = await one(index)
                assert status == 429
                times.append(seconds)
            for holder in holders:
                holder.cancel()
            return times

        times = asyncio.run(beyond())
        return (f"120 at once with room for 12: {served} answered, {len(refused)} refused; the request beyond the limit "
                f"is answered in {percentile(times, 0.5) * 1000:.1f} ms (99 %: {percentile(times, 0.99) * 1000:.1f})")


def hostile_body(random):
    def value(depth=0):
        kind = random.randrange(9 if depth < 5 else 6)
        if kind == 0: return random.choice([None, True, False])
        if kind == 1: return random.choice([0, -1, 1 << 31, 1 << 63, -(1 << 63), 1e308, 0.5, 10**30])
        if kind in (2, 3): return random.choice(["", "a", "\u0000", "\ud83d\ude00" * 50, "<|end|>", "x" * 5000, "</think>"])
        if kind in (4, 5): return random.choice(["user", "assistant", "system", "tool", "text"])
        if kind in (6, 7): return [value(depth + 1) for _ in range(random.randrange(4))]
        return {name(): value(depth + 1) for _ in range(random.randrange(4))}

    def name():
        return random.choice(["messages", "role", "content", "temperature", "top_p", "top_k", "n", "stop", "seed", "logprobs",
                              "max_tokens", "stream", "prompt", "echo", "logit_bias", "model", "type", "text", "zzz"])

    body = {"messages": [{"role": "user", "content": "Hi"}], "prompt": "Hi", "max_tokens": 2, "thinking_budget": 0}
    del body[random.choice(["messages", "prompt"])]
    for _ in range(random.randrange(5)):
        body[name()] = value()
    data = bytearray(json.dumps(body).encode())
    for _ in range(random.choice([0, 0, 1, 3])):
        place = random.randrange(len(data))
        choice = random.randrange(3)
        if choice == 0: data[place] = random.randrange(256)
        elif choice == 1: del data[place:place + random.randrange(20)]
        else: data[place:place] = random.choice([b"[" * 100, b'"', b"\xff\xfe", b"{" * 70, b"0" * 400])
        if not data: data = bytearray(b" ")
    return bytes(data)


def check_hostile(model, scale):
    """Malformed bodies and heads: no crash, and memory near that of an idle server."""
    count = max(200, int(10_000 * scale))
    with serving(model) as server:
        port = server.port
        generator = random.Random(7)
        statuses = {}

        async def one(index):
            path = ("/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize")[index % 4]
            data = hostile_body(generator)
            status, _, body = await send(port, "POST", path, data)
            assert 200 <= status < 500, (path, data, body)
            if status >= 400:
                assert json.loads(body)["error"]["message"], body
            statuses[status] = statuses.get(status, 0) + 1

        async def heads(index):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            data = bytearray(request_bytes("POST", "/v1/completions", {"prompt": "a", "max_tokens": 1}))
            for _ in range(5):
                data[generator.randrange(60)] = generator.randrange(256)
            writer.write(bytes(data))
            writer.write_eof()
            with __import__("contextlib").suppress(ConnectionError, asyncio.TimeoutError):
                await asyncio.wait_for(reader.read(), 30)
            writer.close()

        async def run():
            places = asyncio.Semaphore(32)

            async def limited(work):
                async with places:
                    await work

            await send(port, "POST", "/v1/completions", {"prompt": "a", "max_tokens": 1})
            before = server.resident()
            most = before
            for first in range(0, count, 500):
                work = [limited(one(index)) for index in range(first, min(count, first + 500))]
                work += [limited(heads(index)) for index in range(50)]
                await asyncio.gather(*work)
                most = max(most, server.resident())
            # The largest bodies, several at once.
            large = [b"[" + b"1," * (4 << 20), b'{"prompt":[' + b"1," * (3 << 20) + b"1]}", b'{"prompt":"' + b"x" * (7 << 20) + b'"}']
            await asyncio.gather(*(send(port, "POST", "/v1/completions", data) for data in large))
            most = max(most, server.resident())
            assert (await send(port, "GET", "/health"))[0] == 200
            return before, most

        before, most = asyncio.run(run())
        assert server.process.poll() is None
        assert most - before < 256 << 20, (before, most)
        return f"{count} bodies {dict(sorted(statuses.items()))}; memory {before >> 20} MiB, at most {most >> 20}"


def check_growth(model, scale):
    """Distinct requests: memory does not grow once the prefix cache is full."""
    count = max(500, int(10_000 * scale))
    with serving(model, "--prefix-cache", "32MiB") as server:
        port = server.port

        async def run():
            places = asyncio.Semaphore(16)
            sizes = []

            async def one(index):
                async with places:
                    body = {"prompt": f"{index} {index * 7919} " * 12, "max_tokens": 4, "temperature": 0}
                    status, _, reply = await send(port, "POST", "/v1/completions", body)
                    assert status == 200, reply

            for part in range(10):
                await asyncio.gather(*(one(index) for index in range(part * count // 10, (part + 1) * count // 10)))
                sizes.append(server.resident())
            return sizes

        sizes = asyncio.run(run())
        growth = sizes[-1] / sizes[2] - 1
        assert growth < 0.05, sizes
        return f"{count} distinct requests: memory {[size >> 20 for size in sizes]} MiB, {growth:+.1%} since the third tenth"


CHECKS = {name[6:].replace("_", "-"): check for name, check in list(globals().items()) if name.startswith("check_")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checks", nargs="*", choices=[[], *CHECKS], metavar="CHECK", help=", ".join(CHECKS))
    parser.add_argument("--model", default=str(ROOT / "Models/demo.gguf"))
    parser.add_argument("--scale", type=float, default=1.0)
    arguments = parser.parse_args()
    for name in arguments.checks or CHECKS:
        begin = time.monotonic()
        print(f"{name}: {CHECKS[name](arguments.model, arguments.scale)} ({time.monotonic() - begin:.0f} s)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
