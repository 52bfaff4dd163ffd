"""Measures constraint-benchmark, llguidance and xgrammar on the same schemas, instances and tokens, in turn.

    python compare.py --benchmark PATH --vocabulary o200k_base.tiktoken CASES.jsonl[.gz] [--limit N]
                      [--engines ours,llguidance,xgrammar] [--report FOLDER]

A case is a line `name`, `schema`, `tests` (`valid`, `text`). Times are processor time of one thread. xgrammar compiles
for very long on some schemas: each of its schemas gets a process with a limit (--seconds).
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time

from cases import encoding, read_cases, read_vocabulary


def clock():
    return time.thread_time_ns() / 1000


class Tally:
    def __init__(self, name):
        self.name = name
        self.schemas = self.compiled = self.right = 0
        self.wrong, self.failed, self.compile, self.masks = [], [], [], []

    def add(self, case, result):
        self.schemas += 1
        if result is None:
            self.failed.append(case["name"])
            return
        if result.get("compile") is not None:
            self.compile.append(result["compile"])
        self.masks += result["masks"]
        if not result["compiled"]:
            return
        self.compiled += 1
        valid = [test["valid"] for test in case["tests"]]
        self.right += result["accepted"] == valid
        if any(accepted and not expected for accepted, expected in zip(result["accepted"], valid)):
            self.wrong.append(case["name"])

    def line(self):
        def quantiles(times):
            times = sorted(times)
            if not times:
                return "none"
            at = lambda share: times[min(len(times) - 1, int(share * len(times)))]
            mean = sum(times) / len(times)
            return (f"mean {mean:.1f}, median {at(0.5):.1f}, 99 % {at(0.99):.1f}, 99.9 % {at(0.999):.1f}, "
                    f"most {times[-1]:.1f}")

        share = lambda count: f"{count} ({100 * count / max(self.schemas, 1):.1f} %)"
        return (f"{self.name}: {self.schemas} schemas, compiled {share(self.compiled)}, all tests right "
                f"{share(self.right)}, accepts what is invalid {len(self.wrong)}, crash or time-out {len(self.failed)}\n"
                f"    compile, us: {quantiles(self.compile)}\n    mask, us ({len(self.masks)}): {quantiles(self.masks)}")


class LLGuidance:
    def __init__(self, tokens):
        import llguidance
        import llguidance.tiktoken

        self.tokenizer = llguidance.tiktoken.lltokenizer_from_encoding(encoding(tokens, with_end=True))

    def run(self, case):
        import llguidance.numpy

        masks = []
        began = clock()
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(case["schema"]))
            first = llguidance.LLMatcher(self.tokenizer, grammar, log_level=0)
            compiled = not first.get_error()
        except Exception:
            compiled = False
        compile_time = clock() - began
        accepted = []
        bits = llguidance.numpy.allocate_token_bitmask(1, self.tokenizer.vocab_size)
        for test in case["tests"] if compiled else []:
            matcher = first.deep_copy()
            is_accepted = True
            for token in test["tokens"]:
                began = clock()
                llguidance.numpy.fill_next_token_bitmask(matcher, bits, 0)
                masks.append(clock() - began)
                allowed = int(bits[0][token >> 5]) >> (token & 31) & 1
                if not allowed or not matcher.consume_token(token):
                    is_accepted = False
                    break
            accepted.append(is_accepted and matcher.is_accepting())
        return {"compiled": compiled, "compile": compile_time, "masks": masks, "accepted": accepted}


class XGrammar:
    def __init__(self, tokens):
        import xgrammar

        self.module = xgrammar
        special = max(tokens) + 1
        vocabulary = [tokens.get(number, b"\xff[%d]" % number) for number in range(special)] + [b"<|end|>"]
        info = xgrammar.TokenizerInfo(
            vocabulary, vocab_type=xgrammar.VocabType.RAW, vocab_size=len(vocabulary), stop_token_ids=[special])
        self.compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        self.size = len(vocabulary)

    def run(self, case):
        began = clock()
        try:
            grammar = self.compiler.compile_json_schema(json.dumps(case["schema"]))
        except Exception:
            return {"compiled": False, "compile": clock() - began, "masks": [], "accepted": []}
        compile_time = clock() - began
        masks, accepted = [], []
        bits = self.module.allocate_token_bitmask(1, self.size)
        for test in case["tests"]:
            matcher = self.module.GrammarMatcher(grammar, terminate_without_stop_token=True)
            is_accepted = True
            for token in test["tokens"]:
                if matcher.is_terminated():
                    is_accepted = False
                    break
                began = clock()
                matcher.fill_next_token_bitmask(bits)
                masks.append(clock() - began)
                if not matcher.accept_token(token):
                    is_accepted = False
                    break
            accepted.append(is_accepted and matcher.is_terminated())
        return {"compiled": True, "compile": compile_time, "masks": masks, "accepted": accepted}


def serve(engine, tokens, pipe):
    worker = engine(tokens)
    pipe.send("ready")
    while True:
        case = pipe.recv()
        if case is None:
            return
        pipe.send(worker.run(case))


def measure(engine, name, tokens, cases, seconds):
    """Runs the cases in a process that is replaced when it crashes or takes too long."""
    tally = Tally(name)
    process = pipe = None
    for case in cases:
        if process is None:
            pipe, other = multiprocessing.Pipe()
            process = multiprocessing.Process(target=serve, args=(engine, tokens, other), daemon=True)
            process.start()
            other.close()
            pipe.recv()
        result = None
        try:
            pipe.send(case)
            if pipe.poll(seconds):
                result = pipe.recv()
        except (EOFError, OSError):
            pass
        if result is None:
            process.kill()
            process.join()
            process = None
        tally.add(case, result)
    if process is not None:
        pipe.send(None)
        process.join(5)
    return tally


def measure_ours(path, vocabulary, cases, folder):
    tally = Tally("this engine")
    inputs, report = os.path.join(folder, "cases.jsonl"), os.path.join(folder, "ours.jsonl")
    with open(inputs, "w", encoding="utf-8") as file:
        for case in cases:
            file.write(json.dumps(case, ensure_ascii=False) + "\n")
    subprocess.run([path, vocabulary, inputs, report], check=True, stdout=subprocess.DEVNULL)
    with open(report, encoding="utf-8") as file:
        for case, line in zip(cases, file):
            result = json.loads(line)
            tally.add(case, {"compiled": result["compiled"], "compile": result["compile_us"],
                             "masks": result["mask_us"], "accepted": result["accepted"]})
    return tally


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cases")
    parser.add_argument("--benchmark", required=True)
    parser.add_argument("--vocabulary", required=True)
    parser.add_argument("--engines", default="ours,llguidance,xgrammar")
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--report")
    options = parser.parse_args()
    tokens = read_vocabulary(options.vocabulary)
    cases = list(read_cases(options.cases, encoding(tokens)))
    if options.limit:
        cases = cases[:: max(1, len(cases) // options.limit)][: options.limit]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.report or temporary
        os.makedirs(folder, exist_ok=True)
        for name in options.engines.split(","):
            if name == "ours":
                tally = measure_ours(options.benchmark, options.vocabulary, cases, folder)
            else:
                engine = {"llguidance": LLGuidance, "xgrammar": XGrammar}[name]
                tally = measure(engine, name, tokens, cases, options.seconds)
            print(tally.line(), flush=True)
            if tally.wrong:
                print("    accepts what is invalid:", ", ".join(tally.wrong[:20]), flush=True)


if __name__ == "__main__":
    sys.exit(main())
