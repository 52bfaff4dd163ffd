#!/usr/bin/env python3
"""Answers OpenAI's batch lines on a Ray cluster, each row exactly once; a run that was interrupted continues.

    python batch.py --model /srv/sigma/model.gguf --input questions.jsonl --output results --workers 8

Input is JSON lines with custom_id, url and body, as for sigma-run --batch, or Parquet with these columns (body as JSON
text). Both may be folders. Results are files of JSON lines in the folder that --output names, which all nodes must see;
`cat results/*.jsonl` is what sigma-run --batch would have written, in another order. Each file appears whole, so
whatever stands in the folder is done.
"""

import argparse
import asyncio
import collections
import hashlib
import json
import os
import shlex
import sys
from pathlib import Path

import aiohttp
import pyarrow
import pyarrow.compute
import ray
from ray.data import ActorPoolStrategy, Datasink
from ray.data.block import BlockAccessor
from sigma_child import SigmaServe

# Tries of a block whose worker died: a row that kills its server must not do so for ever.
TRIES = 5
PATHS = {"/v1/chat/completions", "/v1/completions"}


class Worker:
    """One sigma-serve, which answers the rows of a block side by side. Where it dies its worker dies, and Ray repeats
    the block."""

    def __init__(self, command):
        self.server = SigmaServe(command)

    def __call__(self, batch):
        rows = list(zip(batch["custom_id"].tolist(), batch["url"].tolist(), batch["body"].tolist()))
        results = asyncio.run(self.answer_all(rows))
        return {"custom_id": [custom_id for custom_id, _, _ in rows], "result": results}

    async def answer_all(self, rows):
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(
                self.server.url, timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as http:
            return await asyncio.gather(*(self.answer(http, *row) for row in rows))

    async def answer(self, http, custom_id, url, body):
        if url not in PATHS:
            return self.result(custom_id, None, 400, {"error": {
                "message": f"url is {url!r}, expected {' or '.join(sorted(PATHS))}", "code": "invalid_url"}})
        while True:
            try:
                async with http.post(url, data=body, headers={"content-type": "application/json"}) as response:
                    if response.status == 429:
                        await asyncio.sleep(float(response.headers.get("retry-after", 1)))
                        continue
                    return self.result(
                        custom_id, response.headers.get("x-request-id"), response.status, await response.json())
            except aiohttp.ClientError:
                # The server has died; `SigmaServe` ends this process, unless it is the connection alone.
                await asyncio.sleep(1)

    @staticmethod
    def result(custom_id, request_id, status, body):
        error = body.get("error") if status >= 400 else None
        return json.dumps({
            "id": f"batch-{custom_id}", "custom_id": custom_id,
            "response": {"status_code": status, "request_id": request_id, "body": body},
            "error": error and {"code": error.get("code"), "message": error.get("message")},
        }, ensure_ascii=False)


class ResultFiles(Datasink):
    """A file for each block, named by its first row: a task that Ray repeats writes the same file again."""

    def __init__(self, folder):
        self.folder = folder

    def write(self, blocks, ctx):
        for block in blocks:
            table = BlockAccessor.for_block(block).to_arrow()
            if not table.num_rows:
                continue
            name = hashlib.sha256(table["custom_id"][0].as_py().encode()).hexdigest()[:24]
            path = Path(self.folder) / f"{name}.jsonl"
            # Two tries of a task may run at the same time.
            new = path.with_name(f".{name}.{os.getpid()}.new")
            with open(new, "w", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in table["result"].to_pylist())
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)


def results(folder):
    """Every result of a folder."""
    for path in sorted(Path(folder).glob("*.jsonl")):
        with open(path, encoding="utf-8") as file:
            yield from map(json.loads, file)


def rows_of_lines(batch):
    """Rows of a block of JSON lines."""
    ids, urls, bodies = [], [], []
    for line in batch["text"].tolist():
        row = json.loads(line)
        if not isinstance(row.get("custom_id"), str):
            raise ValueError(f"a line has no custom_id: {line[:200]}")
        ids.append(row["custom_id"])
        urls.append(row.get("url", ""))
        bodies.append(json.dumps(row.get("body"), ensure_ascii=False))
    return {"custom_id": ids, "url": urls, "body": bodies}


def read(path):
    """A data set with the columns custom_id, url and body."""
    first = next(iter(sorted(Path(path).iterdir())), None) if Path(path).is_dir() else Path(path)
    if first is not None and first.suffix == ".parquet":
        return ray.data.read_parquet(path).select_columns(["custom_id", "url", "body"])
    return ray.data.read_text(path, drop_empty_lines=True).map_batches(rows_of_lines)


def without(rows, done):
    """Rows that have no result yet."""
    def pending(table):
        known = pyarrow.array(ray.get(done), pyarrow.string())
        return table.filter(pyarrow.compute.invert(pyarrow.compute.is_in(table["custom_id"], known)))

    return rows.map_batches(pending, batch_format="pyarrow")


def answer(arguments):
    folder = Path(arguments.output)
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".*.new"):
        leftover.unlink()
    rows = read(arguments.input)
    ids = [row["custom_id"] for row in rows.select_columns("custom_id").iter_rows()]
    if twice := [name for name, count in collections.Counter(ids).items() if count > 1]:
        raise SystemExit(f"custom_id {twice[0]!r} stands in more than one row")
    done = {result["custom_id"] for result in results(folder)}
    if foreign := done.difference(ids):
        raise SystemExit(f"{folder} has results of other rows, such as {min(foreign)!r}")
    print(f"{len(ids)} rows, {len(done)} have their result", file=sys.stderr, flush=True)
    if len(done) < len(ids):
        command = [arguments.program, "--model", arguments.model, "--parallel", str(arguments.parallel),
                   "--queue", str(arguments.rows), "--log-level", "warning", *shlex.split(arguments.arguments)]
        if done:
            rows = without(rows, ray.put(sorted(done)))
        rows.repartition(target_num_rows_per_block=arguments.rows).map_batches(
            Worker, fn_constructor_args=(command,), batch_size=None, num_cpus=arguments.cpus, max_task_retries=TRIES,
            compute=ActorPoolStrategy(size=arguments.workers, max_tasks_in_flight_per_actor=2),
        ).write_datasink(ResultFiles(str(folder)))
    counts = collections.Counter(result["custom_id"] for result in results(folder))
    if counts != collections.Counter(ids):
        raise SystemExit(f"{folder} has {counts.total()} results of {len(counts)} rows, expected one for each of {len(ids)}")
    print(f"{len(ids)} rows, each has one result", file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--input", required=True, help="JSON lines or Parquet, a file or a folder")
    parser.add_argument("--output", required=True, help="the folder of results, on a file system of all nodes")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rows", type=int, default=64, help="rows of a block, which is what a death costs (default: %(default)s)")
    parser.add_argument("--parallel", type=int, default=16, help="answers side by side on a worker (default: %(default)s)")
    parser.add_argument("--cpus", type=float, default=1, help="processors set aside for a worker (default: %(default)s)")
    parser.add_argument("--program", default="sigma-serve")
    parser.add_argument("--arguments", default="", help='further options of sigma-serve, such as "--memory 6GiB"')
    parser.add_argument("--address", help="the Ray cluster (default: RAY_ADDRESS, else one on this machine)")
    arguments = parser.parse_args()
    # Workers run elsewhere, in a copy of this folder.
    for name in ("model", "input", "output", *(["program"] if "/" in arguments.program else [])):
        setattr(arguments, name, str(Path(getattr(arguments, name)).resolve()))
    ray.init(address=arguments.address, runtime_env={"working_dir": str(Path(__file__).resolve().parent)})
    answer(arguments)


if __name__ == "__main__":
    main()
