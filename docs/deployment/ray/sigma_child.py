"""A sigma-serve as the child of a Ray worker. Both end together, so that Ray sees a dead server as a dead worker."""

import concurrent.futures
import ctypes
import os
import re
import signal
import subprocess
import threading

PR_SET_PDEATHSIG = 1


class SigmaServe:
    """A sigma-serve on a free port of loopback. Its log goes to the worker's, which Ray collects."""

    def __init__(self, command):
        """`command`: the program, its model and further options, without --host and --port."""
        self._command = [*command, "--host", "127.0.0.1", "--port", "0"]
        self._ending = False
        begun = concurrent.futures.Future()
        threading.Thread(target=self._run, args=(begun,), daemon=True).start()
        self.url = begun.result()

    def _run(self, begun):
        """The child's whole life is in one thread: a parent's death, for the kernel, is that of the thread that started
        the child."""
        prctl = ctypes.CDLL(None).prctl
        try:
            # A worker that is killed takes its server with it: nobody could reach it any more.
            self._process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
            match = re.fullmatch(r"listening on (http://\S+)\n", self._process.stdout.readline())
            if not match:
                raise RuntimeError(f"sigma-serve did not begin: exit code {self._process.wait()}, its log says why")
        except Exception as error:
            begun.set_exception(error)
            return
        begun.set_result(match[1])
        code = self._process.wait()
        if not self._ending:
            print(f"sigma-serve has ended with code {code}, and its worker ends with it", flush=True)
            os._exit(70)

    def stop(self):
        """Drains, and returns when the server has ended."""
        self._ending = True
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()
