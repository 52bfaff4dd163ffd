"""sigma-convert and sigma-eval, run for their results."""

import json
import subprocess
import sys
from pathlib import Path


class Commands:
    """The commands in a folder. One that fails ends the script with what it said."""

    def __init__(self, folder: Path):
        self.folder = folder

    def run(self, name: str, *arguments) -> str:
        command = [str(self.folder / name), *map(str, arguments)]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if result.returncode != 0:
            sys.exit(f"{' '.join(command)}: {result.stderr}")
        return result.stdout

    def json(self, *arguments) -> dict:
        return json.loads(self.run("sigma-eval", *arguments, "--json"))

    def tokens(self, model: Path, text: Path) -> list[int]:
        return json.loads(self.run("sigma-eval", "tokenize", "--model", model, text))
