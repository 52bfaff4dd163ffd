"""Answers that were given, one JSON line each: what a run that was interrupted need not ask again."""

import hashlib
import json
import threading


def digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class AnswerStore:
    def __init__(self, path):
        self.path = path
        self.answers = {}
        self.lock = threading.Lock()
        if path.exists():
            self.read()
        self.file = open(path, "a", encoding="utf-8")

    def read(self):
        """A last line that was cut short by a crash is forgotten, and taken off the file."""
        kept = 0
        with open(self.path, "rb") as file:
            for line in file:
                try:
                    entry = json.loads(line)
                    self.answers[entry["key"]] = entry
                except (ValueError, KeyError, TypeError):
                    break
                if not line.endswith(b"\n"):
                    break
                kept += len(line)
        with open(self.path, "r+b") as file:
            file.truncate(kept)

    def get(self, key):
        with self.lock:
            return self.answers.get(key)

    def put(self, key, entry):
        with self.lock:
            self.answers[key] = entry = {"key": key, **entry}
            self.file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            self.file.flush()
        return entry

    def close(self):
        self.file.close()
