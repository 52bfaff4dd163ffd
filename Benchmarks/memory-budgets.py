"""Whether memory budgets hold what they promise: at many budgets from the least that works upwards, for one model or several.

    python memory-budgets.py MODEL.gguf ... [--budgets 30] [--cases 8] [--bin .build/release] [--no-groups] [--output results.jsonl]

The budgets begin at the least that the model says it needs. At each of them, and for both types of key-value cache:

1. `--stats` states the longest sequence. An answer without end to a prompt that is nearly as long must end with `context`, at the number that its own run states.
2. Answers to prompts of 1 to 4,000 tokens, prediction on and off, from `--tokens` and in a chat of two questions on a pseudo terminal. Answers must be
   those of the model without a budget, to the byte; of a chat also keys and values. A prompt that does not fit must be refused
   before its first token.
3. The same in a control group whose limit is the budget, where the tree may be written to: the system must not end the process.

Cases are drawn so that every budget has every combination, with a length of its own. Times do not matter: other work may run beside it.
"""

import argparse
import json
import os
import pty
import random
import re
import select
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

from control_group import Group

ROOT = Path(__file__).resolve().parents[1]
LENGTHS = [1, 2, 17, 100, 255, 256, 257, 700, 1500, 2500, 4000]
ANSWER = 24
TIMEOUT = 900


def prompt_ids(length, seed):
    """Ids below those of special tokens."""
    source = random.Random(seed)
    return [source.randrange(256) for _ in range(length)]


def session_fields(session):
    """The JSON of a session file: docs/library.md."""
    return json.loads(session[28 : 28 + int.from_bytes(session[12:16], "little")])


def turns(session):
    return session_fields(session)["turns"]


def tokens(session):
    return session_fields(session)["tokens"]


def is_beginning(turns, of):
    """Whether the last turn of a conversation ends early, and nothing else is different."""
    def text(turn):
        return turn.get("reasoning", "") + turn["text"]

    if len(turns) > len(of) or any(turn != other for turn, other in zip(turns[:-1], of)):
        return False
    return not turns or text(of[len(turns) - 1]).startswith(text(turns[-1]).rstrip("\ufffd"))


class Run:
    """What one sigma-run gave."""

    def __init__(self, arguments, group=None):
        enter = group.enter if group else None
        result = subprocess.run(arguments, capture_output=True, text=True, timeout=TIMEOUT, preexec_fn=enter)
        self.code, self.errors = result.returncode, result.stderr
        events = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
        self.tokens = [event["id"] for event in events if event["event"] == "token"]
        done = [event for event in events if event["event"] == "done"]
        self.reason = done[0]["reason"] if done else None

    @property
    def stated_length(self):
        return int(re.search(r"longest sequence +([0-9]+)", self.errors).group(1))


class Chat:
    """A chat on a pseudo terminal."""

    def __init__(self, arguments, group=None):
        self.output = b""
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            if group:
                group.enter()
            os.environ["TERM"] = "xterm"
            os.execv(arguments[0], arguments)
        self.code = None

    def read(self, seconds):
        if not select.select([self.terminal], [], [], seconds)[0]:
            return True
        try:
            piece = os.read(self.terminal, 1 << 16)
        except OSError:
            piece = b""
        self.output += piece
        return bool(piece)

    def wait(self, mark, start):
        """Until `mark` (or an error) stands behind `start`, and the next prompt behind it."""
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            for word in mark, b"error: ":
                at = self.output.find(word, start)
                if at >= 0 and b"\x1b[J> " in self.output[at:]:
                    return True
            if not self.read(1):
                return False
        raise TimeoutError(self.output[-2000:])

    def enter(self, text, mark):
        start = len(self.output)
        os.write(self.terminal, text.encode() + b"\r")
        return self.wait(mark, start)

    def end(self):
        """Leaves; a second time without saving, as a failed save asks for."""
        end = time.monotonic() + 60
        asked = 0
        while time.monotonic() < end:
            if time.monotonic() > end - 60 + 5 * asked:
                try:
                    os.write(self.terminal, b"\x04")
                except OSError:
                    pass
                asked += 1
            self.read(0.1)
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                os.close(self.terminal)
                self.code = os.waitstatus_to_exitcode(status)
                return self.code
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        return "hangs"


class Sweep:
    def __init__(self, options, model, report):
        self.options, self.model, self.report = options, model, report
        self.command = str(options.bin / "sigma-run")
        self.folder = tempfile.TemporaryDirectory(prefix="sigma-budgets-")
        os.environ["XDG_STATE_HOME"] = self.folder.name
        self.expected = {}
        self.counts = {}

    def arguments(self, kv, *more):
        return [
            self.command, "--model", self.model, "--backend", "cpu", "--kv-type", kv, "--seed", "5", "--context", "32768",
            "--threads", str(self.options.threads), *more]

    def budget(self, mebibytes, prediction="off"):
        return ["--memory", f"{mebibytes}MiB", "--expert-prediction", prediction]

    def least(self):
        run = Run(self.arguments("f16", "--tokens", "1", "--max-tokens", "1", "--memory", "1MiB"))
        found = re.search(r"needs ([0-9]+) MiB at least", run.errors)
        if not found:
            sys.exit(f"{self.model}: expected the least budget, found {run.code} {run.errors}")
        return int(found.group(1))

    def budgets(self):
        """From the least that works to what the model has in all, evenly by ratio: at the small end a MiB apart, or nearly."""
        least = self.least()
        most = max(least + self.options.budgets - 1, least + (os.path.getsize(self.model) >> 20))
        ratio = (most / least) ** (1 / max(1, self.options.budgets - 1))
        found = []
        for index in range(self.options.budgets):
            found.append(max(round(least * ratio**index), found[-1] + 1 if found else least))
        return found

    # What a case is, and what it must give.

    def one_shot(self, kv, length, extra, group=None):
        ids = ",".join(map(str, prompt_ids(length, length)))
        return Run(
            self.arguments(kv, "--tokens", ids, "--max-tokens", str(ANSWER), "--temperature", "1", "--json", *extra), group)

    def chat(self, kv, length, extra, group=None):
        """The session file after two questions, None where a question found no place; and how the chat ended."""
        file = Path(self.folder.name, "sweep.chat")
        file.unlink(missing_ok=True)
        system = Path(self.folder.name, "system.txt")
        # A token a word or less: near the length, and the same each time.
        source = random.Random(length)
        system.write_text(" ".join(str(source.randrange(10)) for _ in range((length + 1) // 2)))
        chat = Chat(
            self.arguments(
                kv, "--system-file", str(system), "--max-tokens", str(ANSWER), "--thinking-budget", str(ANSWER),
                "--temperature", "0", "--stats", *extra), group)
        fits = chat.wait(b"\x1b[J> ", 0)
        for question in "What is 2 + 3?", "And 7 + 8?":
            fits = fits and chat.enter(question, b"peak memory")
        if fits and b"error: " not in chat.output:
            fits = chat.enter(f"/save {file}", b"sweep.chat\x1b[0m")
        code = chat.end()
        text = chat.output.decode(errors="replace")
        error = re.search(r"error: .*", text)
        found = error or re.search(r"The conversation (has|reached) .*", text)
        return (file.read_bytes() if file.exists() else None), code, found.group(0) if found else None

    def check_stated_length(self, mebibytes, kv):
        stats = Run(self.arguments(kv, "--tokens", "5", "--max-tokens", "1", "--stats", *self.budget(mebibytes)))
        if stats.code:
            return f"the least budget does not work: {stats.code} {stats.errors}"
        if stats.stated_length > self.options.longest:
            return None
        # What the process itself takes differs a little from run to run, and so does the length: by a block of positions, perhaps.
        prompt = max(1, stats.stated_length - 256 - ANSWER)
        for seed in range(3):
            run = Run(
                self.arguments(
                    kv, "--tokens", ",".join(map(str, prompt_ids(prompt, seed))), "--max-tokens", "2000", "--temperature", "20",
                    "--top-k", "0", "--top-p", "1", "--json", "--stats", *self.budget(mebibytes)))
            if run.code or run.reason not in ("context", "stop"):
                return f"{prompt} of prompt: {run.code} {run.reason} after {len(run.tokens)} {run.errors}"
            length = run.stated_length
            if run.reason == "context":
                found = prompt + len(run.tokens)
                # The last token needs no place of its own.
                return None if found in (length, length + 1) else f"{length} stated, ended with {found}"
        return None

    def check_one_shot(self, kv, length, extra, group):
        key = ("one-shot", kv, length)
        if key not in self.expected:
            self.expected[key] = self.one_shot(kv, length, ["--expert-cache", "all"])
        whole, run = self.expected[key], self.one_shot(kv, length, extra, group)
        if run.code == 69 and not run.tokens and run.reason is None:
            return "refused"
        if run.code:
            return f"code {run.code} after {len(run.tokens)} tokens: {run.errors}"
        if run.tokens != whole.tokens[: len(run.tokens)]:
            return "other tokens than without a budget"
        if run.reason != whole.reason and run.reason != "context":
            return f"ends with {run.reason}, without a budget with {whole.reason}"
        return None

    def check_chat(self, kv, length, extra, group):
        key = ("chat", kv, length)
        if key not in self.expected:
            self.expected[key] = self.chat(kv, length, ["--expert-cache", "all"])
            if not self.expected[key][0]:
                return f"the chat without a budget fails: {self.expected[key][1:]}"
        session, code, error = self.chat(kv, length, extra, group)
        if code == 69 and error:
            return "refused"
        if code != 0:
            return f"the chat ends with {code}: {error}"
        if session is None:
            return "refused" if error and "room" in error else f"the chat is not saved: {error}"
        whole = self.expected[key][0]
        if error and error.startswith("The conversation"):
            return None if is_beginning(turns(session), turns(whole)) else "an answer that ended early is no beginning"
        if turns(session) != turns(whole):
            return "the answers differ from those without a budget"
        # What is read ahead while nobody types depends on time.
        if tokens(session) == tokens(whole) and session != whole:
            return "keys or values differ from those without a budget"
        return None

    def run(self):
        budgets = self.budgets()
        checks = {"one-shot": self.check_one_shot, "chat": self.check_chat}
        wrong = 0
        for index, mebibytes in enumerate(budgets):
            for kv in "f16", "q8_0":
                wrong += self.note(self.check_stated_length(mebibytes, kv), form="stated length", budget=mebibytes, kv=kv)
            cases = list(product(checks, ["f16", "q8_0"], ["on", "off"], [False, True]))
            random.Random(index).shuffle(cases)
            for number, (form, kv, prediction, grouped) in enumerate(cases[: self.options.cases]):
                if grouped and not self.options.groups:
                    continue
                length = LENGTHS[(index * 3 + number) % len(LENGTHS)]
                group = Group("sigma-budgets", mebibytes << 20) if grouped else None
                found = checks[form](kv, length, self.budget(mebibytes, prediction), group)
                if group:
                    group.remove()
                wrong += self.note(
                    found, form=form, budget=mebibytes, kv=kv, prediction=prediction, group=grouped, length=length)
        print(f"{self.model}: {len(budgets)} budgets from {budgets[0]} to {budgets[-1]} MiB: {self.counts}", flush=True)
        return wrong

    def note(self, found, **case):
        outcome = "ok" if found is None else "refused" if found == "refused" else "wrong"
        self.counts[outcome] = self.counts.get(outcome, 0) + 1
        if self.report:
            self.report.write(json.dumps({"model": self.model, **case, "outcome": outcome, "found": found}) + "\n")
            self.report.flush()
        if outcome == "wrong":
            print(f"wrong: {case}: {found}", flush=True)
        return outcome == "wrong"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--budgets", type=int, default=30)
    parser.add_argument("--cases", type=int, default=16, help="of the 16 combinations, how many at each budget")
    parser.add_argument("--longest", type=int, default=4096, help="a stated length up to which it is tried")
    parser.add_argument("--threads", type=int, default=1, help="one loses least to other work beside it")
    parser.add_argument("--bin", type=Path, default=ROOT / ".build/release")
    parser.add_argument("--groups", action=argparse.BooleanOptionalAction, default=Group.can_be_made())
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    report = options.output.open("w") if options.output else None
    wrong = sum(Sweep(options, model, report).run() for model in options.models)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
