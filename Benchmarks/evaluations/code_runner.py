"""Runs programs that a model wrote, apart from everything: see code_jail.py for the walls.

    outcome = run("assert 1 + 1 == 2")
    outcome.passed, outcome.reason

A program passes if it runs to its end. Linux only: elsewhere, and where the kernel lacks a wall, `check()` says what is missing.
"""

import json
import os
import secrets
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

JAIL = Path(__file__).with_name("code_jail.py")
OUTPUT_LIMIT = 1 << 16


class Unavailable(Exception):
    """This machine cannot run programs apart."""


@dataclass
class Outcome:
    passed: bool
    #: "passed", "failed", "time", "output", or "jail: ..." where a wall could not be built
    reason: str
    #: the end of what it wrote
    output: str
    seconds: float


def run(program, seconds=10, wall=None, memory=1 << 30):
    """Runs a Python program for at most so many seconds of processor time, six times as long by the clock (or `wall`), in so many bytes of address
    space."""
    begin = time.monotonic()
    wall = wall or 6 * seconds
    nonce = secrets.token_hex(16)
    read_end, write_end = os.pipe()
    job = {"program": program, "nonce": nonce, "seconds": max(1, round(seconds)), "memory": memory, "result": write_end}
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", str(JAIL)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        pass_fds=[write_end], env={"LC_ALL": "C.UTF-8"}, cwd="/", start_new_session=True)
    os.close(write_end)
    try:
        try:
            process.stdin.write(json.dumps(job).encode())
            process.stdin.close()
        except BrokenPipeError:
            pass
        output, limit = collect(process, begin + wall)
    finally:
        # Nothing in the jail can start a process, or leave its session.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    with open(read_end, "rb") as result:
        said = result.read(256).decode(errors="replace")
    text = output[-2000:].decode(errors="replace")
    if said.startswith("jail: "):
        return Outcome(False, said, text, time.monotonic() - begin)
    if process.returncode in (-signal.SIGKILL, -signal.SIGXCPU):
        limit = limit or "time"
    passed = limit is None and process.returncode == 0 and said == nonce
    return Outcome(passed, limit or ("passed" if passed else "failed"), text, time.monotonic() - begin)


def collect(process, deadline):
    """What the process writes until it ends, and which limit it reached, if any."""
    output = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return output, "time"
            if not selector.select(left):
                continue
            piece = os.read(process.stdout.fileno(), 1 << 14)
            if not piece:
                break
            output += piece
            if len(output) > OUTPUT_LIMIT:
                return output, "output"
    # It has closed its output, and may go on all the same.
    try:
        process.wait(max(0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return output, "time"
    return output, None


def check():
    """Raises Unavailable, with the reason, where programs cannot be run apart."""
    if not sys.platform.startswith("linux"):
        raise Unavailable("programs of models are run apart with seccomp and Landlock, which only Linux has")
    outcome = run("import math, collections, itertools\nassert math.gcd(12, 18) == 6")
    if not outcome.passed:
        raise Unavailable(f"a harmless program does not run in the jail: {outcome.reason} {outcome.output}")
    # The walls stand: these must be refused.
    for attempt in ["open('/etc/passwd')", "import socket; socket.socket()", "import os; os.fork()"]:
        if run(attempt).passed:
            raise Unavailable(f"the jail let a program do this: {attempt}")
