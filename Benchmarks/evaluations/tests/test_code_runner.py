"""The code runner against hostile programs. None may pass, reach anything outside, or outlast its time."""

import os
import resource
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import code_runner  # noqa: E402


def run(program, seconds=10, **more):
    return code_runner.run(program, seconds=seconds, **more)


def processor_seconds():
    """Of programs that have ended: a busy machine does not lengthen them."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def processes():
    return sum(name.isdigit() for name in os.listdir("/proc"))


@unittest.skipUnless(sys.platform.startswith("linux"), "the jail is Linux's")
class CodeRunnerTest(unittest.TestCase):
    def assertRefused(self, program, reason="failed", words="", **more):
        outcome = run(program, **more)
        self.assertFalse(outcome.passed, program)
        self.assertEqual(outcome.reason, reason, outcome.output)
        self.assertIn(words, outcome.output)
        return outcome

    def assertPasses(self, program):
        outcome = run(program)
        self.assertTrue(outcome.passed, f"{outcome.reason}: {outcome.output}")

    # ---- honest programs

    def test_what_is_right_passes(self):
        code_runner.check()
        self.assertPasses("def f(x): return x + 1\nassert f(1) == 2")
        self.assertPasses("import math, re, collections, itertools, functools, heapq, bisect, random, string, json, datetime, decimal, fractions, typing")
        self.assertPasses("from collections import Counter\nassert Counter('aab').most_common(1) == [('a', 2)]")
        self.assertPasses("import hashlib\nassert hashlib.md5(b'').hexdigest().startswith('d41d8')")
        self.assertPasses("import threading\nseen = []\nt = threading.Thread(target=lambda: seen.append(1))\nt.start(); t.join()\nassert seen == [1]")
        self.assertPasses("print('x' * 1000)")
        self.assertPasses("x = [0] * 10_000_000\nassert len(x) == 10_000_000")
        self.assertPasses("import sys\nsys.setrecursionlimit(5000)\ndef f(n): return n and f(n - 1)\nassert f(4000) == 0")
        self.assertPasses("if __name__ == '__main__':\n    ran = True\nassert ran")
        self.assertPasses("import unittest, dataclasses, enum, statistics, operator, copy, time, textwrap\ntime.sleep(0.01)")

    def test_what_is_wrong_fails(self):
        self.assertRefused("assert 1 + 1 == 3", words="AssertionError")
        self.assertRefused("def f(:", words="SyntaxError")
        self.assertRefused("undefined", words="NameError")
        self.assertRefused("raise KeyboardInterrupt")
        self.assertRefused("import numpy_of_nobody", words="ModuleNotFoundError")

    # ---- pretending

    def test_ending_early_is_no_success(self):
        for program in ["import sys; sys.exit(0)", "raise SystemExit", "import os; os._exit(0)", "exit = None; import os; os._exit(0)",
                        "import os; os.close(3)", "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'passed')\n    except OSError: pass",
                        "import os\nfor fd in range(3, 64):\n    try: os.close(fd)\n    except OSError: pass\nos._exit(0)", "import atexit, os\natexit.register(os._exit, 0)\nassert False",
                        "import sys\nsys.excepthook = lambda *a: None\nassert False", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"]:
            self.assertFalse(run(program).passed, program)

    # ---- time

    def test_endless_loops_end(self):
        for program in ["while True: pass", "import time; time.sleep(1000)", "import signal\nfor s in range(1, 64):\n    try: signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError): pass\nwhile True: pass",
                        "try:\n    while True: pass\nfinally:\n    while True: pass", "import threading\nthreading.Thread(target=lambda: [None for _ in iter(int, 1)]).start()",
                        "import sys, os\nos.close(1); os.close(2)\nwhile True: pass", "x = 7\nwhile True: x = x * x", "import re\nre.match(r'(a+)+$', 'a' * 40 + 'b')", "try: input()\nexcept EOFError: pass\nwhile True: pass"]:
            before = processor_seconds()
            outcome = run(program, seconds=1, wall=8)
            self.assertEqual((outcome.passed, outcome.reason), (False, "time"), program)
            self.assertLess(processor_seconds() - before, 3, program)

    def test_endless_output_ends(self):
        self.assertRefused("while True: print('x' * 1000)", reason="output")
        self.assertRefused("import sys\nwhile True: sys.stderr.write('y' * 4096)", reason="output")

    # ---- memory

    def test_memory_is_limited(self):
        self.assertRefused("x = bytearray(10 * 2**30)", words="MemoryError")
        self.assertRefused("x = 'a' * (10 * 2**30)", words="MemoryError")
        self.assertFalse(run("x = []\nwhile True: x.append(bytearray(1 << 20))").passed)
        self.assertFalse(run("x = [0]\nwhile True: x += x").passed)
        self.assertFalse(run("import mmap\nmmap.mmap(-1, 10 * 2**30)").passed)
        self.assertFalse(run("import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))\nx = bytearray(2 * 2**30)").passed)

    # ---- processes

    def test_no_processes(self):
        before = processes()
        self.assertRefused("import os\nwhile True: os.fork()", words="PermissionError")
        self.assertRefused("import os\nos.fork()", words="PermissionError")
        self.assertRefused("import subprocess\nsubprocess.run(['/bin/true'])")
        self.assertRefused("import os\nos.execv('/bin/true', ['true'])", words="PermissionError")
        self.assertRefused("import os\nassert os.system('true') == 0")
        self.assertRefused("import multiprocessing\np = multiprocessing.Process(target=print); p.start(); p.join()")
        self.assertRefused("import ctypes\nassert ctypes.CDLL(None).fork() >= 0", words="AssertionError")
        self.assertRefused("import ctypes\nassert ctypes.CDLL(None).syscall(57) >= 0", words="AssertionError")
        outcome = run("import threading, time\nfor _ in range(100000): threading.Thread(target=time.sleep, args=(60,)).start()")
        self.assertFalse(outcome.passed)
        time.sleep(0.2)
        self.assertLess(abs(processes() - before), 20)

    def test_others_are_left_alone(self):
        parent = os.getpid()
        for number in (9, 15, 0):
            self.assertRefused(f"import os\nos.kill({parent}, {number})", words="PermissionError")
        self.assertRefused("import os\nos.kill(os.getppid(), 9)", words="PermissionError")
        self.assertRefused("import os\nos.killpg(0, 9)")
        self.assertRefused("import os\nos.kill(-1, 9)")
        self.assertRefused(f"import ctypes\nassert ctypes.CDLL(None, use_errno=True).ptrace(16, {parent}, 0, 0) == 0", words="AssertionError")
        self.assertRefused(f"open('/proc/{parent}/environ').read()", words="PermissionError")
        self.assertRefused("import os\nos.setpriority(os.PRIO_PROCESS, 0, -20)")

    # ---- files

    def test_no_files(self):
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o777)
            secret = Path(folder, "secret")
            secret.write_text("secret")
            os.chmod(secret, 0o666)
            for program in [f"open({str(secret)!r}).read()", f"open({str(secret)!r}, 'w')", f"open({folder + '/new'!r}, 'w')", f"import os\nos.unlink({str(secret)!r})",
                            f"import os\nos.rename({str(secret)!r}, {folder + '/other'!r})", f"import os\nos.mkdir({folder + '/folder'!r})",
                            f"import os\nos.symlink('/', {folder + '/link'!r})", f"import os\nos.listdir({folder!r})", f"import os\nos.chmod({str(secret)!r}, 0)",
                            f"import os\nos.truncate({str(secret)!r}, 0)", f"import os\nos.utime({str(secret)!r})", f"import os\nos.chdir({folder!r})",
                            f"import shutil\nshutil.rmtree({folder!r})", f"import tempfile\ntempfile.mkstemp(dir={folder!r})",
                            f"import sqlite3\nsqlite3.connect({folder + '/db'!r}).execute('create table t (x)')"]:
                self.assertRefused(program)
            self.assertEqual(os.listdir(folder), ["secret"])
            self.assertEqual(secret.read_text(), "secret")
            self.assertEqual(os.stat(secret).st_mode & 0o777, 0o666)
        for path in ["/etc/passwd", "/etc/shadow", "/etc/hostname", "/proc/self/environ", "/proc/self/mem", "/proc/1/cmdline", "/dev/mem", "/sys/kernel", "/root", "/home",
                     str(Path(__file__).resolve()), str(Path(code_runner.__file__).resolve())]:
            self.assertRefused(f"open({path!r}).read()")
        self.assertRefused("import os\nos.listdir('/')", words="PermissionError")
        self.assertRefused("import os\nos.memfd_create('x')")
        self.assertRefused("import os\nos.open('/tmp', os.O_TMPFILE | os.O_RDWR)")

    # ---- network

    def test_no_network(self):
        for program in ["import socket; socket.socket()", "import socket; socket.socket(socket.AF_UNIX)", "import socket; socket.socketpair()",
                        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:1/')", "import socket; socket.create_connection(('127.0.0.1', 22))",
                        "import asyncio\nasyncio.run(asyncio.sleep(0))", "import ctypes\nassert ctypes.CDLL(None).socket(2, 1, 0) >= 0",
                        "import ctypes\nassert ctypes.CDLL(None).syscall(425, 1, 0) >= 0"]:
            self.assertRefused(program)

    # ---- privileges

    def test_another_user(self):
        outcome = run("import os\nprint(os.getuid(), os.getgid())")
        self.assertTrue(outcome.passed, outcome.output)
        if os.geteuid() == 0:
            self.assertGreaterEqual(int(outcome.output.split()[0]), 2_000_000_000)
        self.assertRefused("import os\nos.setuid(0)", words="PermissionError")
        self.assertRefused("import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0", words="AssertionError")
        self.assertRefused("import ctypes\nassert ctypes.CDLL(None).mount(b'none', b'/mnt', b'tmpfs', 0, None) == 0", words="AssertionError")

    def test_nothing_of_the_environment(self):
        os.environ["SIGMA_API_KEY"] = "very-secret"
        try:
            self.assertPasses("import os\nassert not any('SIGMA' in name for name in os.environ), os.environ")
        finally:
            del os.environ["SIGMA_API_KEY"]


if __name__ == "__main__":
    unittest.main()
