"""What a training process asks of its machine: one core, memory that stays, states that are never half written."""

import ctypes
import multiprocessing
import signal
import sys
from pathlib import Path

import torch


def use_one_core():
    torch.set_num_threads(1)
    if sys.platform == "linux":
        # glibc returns every large block to the system, and each new one costs its page faults again: keep them.
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


class StopRequest:
    """True once the process was asked to end (SIGINT, SIGTERM), so that it can save its state first. Passes it on to the processes
    that this one has started."""

    def __init__(self):
        self.made = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.make)

    def make(self, *_):
        self.made = True
        for child in multiprocessing.active_children():
            child.terminate()

    def __bool__(self) -> bool:
        return self.made


def save_state(state: dict, file: Path):
    """Replaces the file in one move: a process that is killed leaves the old state or the new one."""
    fresh = file.with_suffix(".new")
    torch.save(state, fresh)
    fresh.replace(file)
