"""Ray Data on three nodes: docs/deployment/ray/batch.py, whose workers and driver are killed, against sigma-run
--batch."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from check_server import question
from cluster import RAY, children, cluster, workers

ROWS, BLOCK, WORKERS = 2000, 20, 3


def lines():
    for index in range(ROWS):
        body = {"messages": [{"role": "user", "content": question(index)}], "temperature": (0, 0.8)[index % 2], "seed": index,
                "max_tokens": 24, "chat_template_kwargs": {"enable_thinking": index % 4 == 0}, "thinking_budget": 24}
        if index % 500 == 499:
            body["temperature"] = -1        # refused
        yield {"custom_id": f"row-{index:04}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def said(results):
    """What each row says, without what differs between two runs: ids and times."""
    found = {}
    for result in results:
        response = result["response"]
        body = response["body"]
        assert result["custom_id"] not in found, f"{result['custom_id']} has two results"
        found[result["custom_id"]] = (response["status_code"], body.get("choices"), body.get("error"))
    return found


def check_batch(arguments):
    with tempfile.TemporaryDirectory() as folder, cluster(cpus_per_node=2) as nodes:
        folder = Path(folder)
        questions, wanted, results = folder / "questions.jsonl", folder / "wanted.jsonl", folder / "results"
        questions.write_text("".join(json.dumps(line) + "\n" for line in lines()))
        subprocess.run([arguments.sigma_run, "--model", arguments.model, "--threads", "1", "--batch", questions,
                        "--output", wanted], check=True, stderr=subprocess.DEVNULL)

        def begin(source):
            log = open(folder / "batch.log", "a")
            return subprocess.Popen(
                [sys.executable, RAY / "batch.py", "--address", nodes.address, "--model", arguments.model, "--input", source,
                 "--output", results, "--workers", str(WORKERS), "--rows", str(BLOCK), "--program", arguments.sigma_serve,
                 "--arguments=--threads 1"], stdout=log, stderr=log)

        def wait(run, files):
            deadline = time.monotonic() + 300
            while len(list(results.glob("*.jsonl"))) < files:
                assert run.poll() is None, f"the run has ended with {run.poll()}:\n{(folder / 'batch.log').read_text()[-3000:]}"
                assert time.monotonic() < deadline, "no further results"
                time.sleep(0.05)

        run = begin(questions)
        blocks = ROWS // BLOCK
        killed = 0
        for share, victim in ((0.1, lambda pid: pid), (0.3, lambda pid: children(pid)[0])):
            wait(run, int(share * blocks))
            pid = victim(workers(nodes, "MapWorker")[0])
            os.kill(pid, signal.SIGKILL)
            killed += 1
        wait(run, int(0.6 * blocks))
        run.kill()
        run.wait()
        done = sum(1 for path in results.glob("*.jsonl") for _ in open(path))
        assert BLOCK <= done < ROWS, f"{done} rows were done when the driver was killed"

        # The rest, from Parquet: what is read does not matter to what was done.
        import pyarrow
        import pyarrow.parquet
        table = [{"custom_id": line["custom_id"], "url": line["url"], "body": json.dumps(line["body"])} for line in lines()]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), folder / "questions.parquet")
        run = begin(folder / "questions.parquet")
        assert run.wait(timeout=400) == 0, (folder / "batch.log").read_text()[-3000:]

        got = said(json.loads(line) for path in results.glob("*.jsonl") for line in open(path))
        want = said(json.loads(line) for line in open(wanted))
        assert len(want) == ROWS and got.keys() == want.keys()
        different = [name for name in want if got[name] != want[name]]
        assert not different, f"{len(different)} differ: {[(got[name], want[name]) for name in different[:2]]}"
        refused = sum(status != 200 for status, _, _ in want.values())
        return (f"{ROWS} rows, {killed} workers and then the driver killed after {done} of them: each row has one result, "
                f"{refused} of them a refusal, as sigma-run --batch says it")
