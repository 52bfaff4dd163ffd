"""Control groups for memory. Writing to their tree takes a superuser."""

import os
import subprocess
import time
from pathlib import Path


class Group:
    """A control group for memory, of whichever version is mounted."""

    @staticmethod
    def root():
        first = Path("/sys/fs/cgroup/memory")
        return first if first.is_dir() else Path("/sys/fs/cgroup")

    @classmethod
    def can_be_made(cls):
        return os.access(cls.root(), os.W_OK)

    def __init__(self, name, limit=None):
        root = self.root()
        self.is_version1 = root.name == "memory"
        self.path = root / f"{name}-{os.getpid()}"
        self.path.mkdir()
        if limit is not None:
            self._write("memory.limit_in_bytes" if self.is_version1 else "memory.max", limit)

    def _write(self, file, value):
        (self.path / file).write_text(str(value))

    def _read(self, file):
        return (self.path / file).read_text()

    def enter(self):
        """Moves the calling process into the group."""
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def run(self, command, **options):
        return subprocess.run(command, preexec_fn=self.enter, capture_output=True, text=True, **options)

    @property
    def highest_usage(self):
        return int(self._read("memory.max_usage_in_bytes" if self.is_version1 else "memory.peak"))

    @property
    def reclaims(self):
        """How often the limit was met."""
        if self.is_version1:
            return int(self._read("memory.failcnt"))
        events = dict(line.split() for line in self._read("memory.events").splitlines())
        return int(events["max"])

    def remove(self):
        for _ in range(50):
            try:
                self.path.rmdir()
                return
            except OSError:
                time.sleep(0.1)
