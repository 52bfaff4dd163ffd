"""What a run does now, and how long it will take: one line on a terminal, else a line every half minute."""

import sys
import threading
import time


def duration(seconds):
    minutes, hours = int(seconds) // 60, int(seconds) // 3600
    return f"{hours} h {minutes % 60:02d} min" if hours else f"{minutes} min {int(seconds) % 60:02d} s"


class Progress:
    def __init__(self, label, stream=sys.stderr):
        self.label, self.stream = label, stream
        self.lock = threading.Lock()
        self.begin(0, "")

    def begin(self, total, unit):
        self.total, self.unit = total, unit
        self.done = self.new = self.tokens = 0
        self.start = time.monotonic()
        self.shown = 0

    def add(self, count, is_new, tokens=0):
        """So much more is done; what an earlier run has done says nothing of the speed."""
        with self.lock:
            self.done += count
            if is_new:
                self.new += count
                self.tokens += tokens
            elif not self.new:
                self.start = time.monotonic()
            wait = 0.5 if self.stream.isatty() else 30
            if time.monotonic() - self.shown >= wait:
                self.shown = time.monotonic()
                self.stream.write(("\r\x1b[K" if self.stream.isatty() else "") + self.line() + ("" if self.stream.isatty() else "\n"))
                self.stream.flush()

    def line(self):
        text = f"{self.label}: {self.done} of {self.total} {self.unit}"
        left = self.seconds_left()
        if left is not None:
            seconds = time.monotonic() - self.start
            text += f", {(self.tokens or self.new) / seconds:.1f} {'tokens' if self.tokens else self.unit}/s, {duration(left)} left"
        return text

    def seconds_left(self):
        seconds = time.monotonic() - self.start
        return (self.total - self.done) * seconds / self.new if self.new and seconds > 1 else None

    def end(self):
        if self.stream.isatty():
            self.stream.write("\r\x1b[K")
            self.stream.flush()
