"""Holds the engine to SmolLM2's own numbers, template and tokenizer.

    make smollm
    python Models/reference/check_smollm.py Models/smollm/SmolLM2-135M-Instruct.Q4_1.gguf

Reads the GGUF file with the `gguf` package (values), `jinja2` (chat template) and `tokenizers` (vocabulary and merges), and compares:
the prompt of the question with the template's, the tokens of 10,000 lines, and the log-probabilities of the file converted with `--type f32`
with those of `gguf_reference.py`. Prints what it finds; exits with 1 where something differs.
"""

import argparse
import json
import random
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import jinja2
import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from gguf_reference import DenseModel

QUESTION = "What is the capital of France?"
# What a float reference gave when this was written: The, L, La.
KNOWN = {"The": -1.88, "L": -1.96, "La": -2.27}


def tokenizer_of(model: DenseModel) -> Tokenizer:
    tokens, kinds = model.field("tokenizer.ggml.tokens"), model.field("tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in model.field("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    assert model.field("tokenizer.ggml.pre") == "smollm"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t, kind in zip(tokens, kinds) if kind == 3])
    return tokenizer


def lines(count: int) -> list[str]:
    """Source text of Python's library and random characters: words, code, digits, white space, and scripts of all kinds."""
    result, rng = [], random.Random(1)
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        result += path.read_text(encoding="utf-8", errors="ignore").splitlines()
    result = rng.sample([line for line in result if line.strip()], count * 7 // 10)
    pieces = [" ", "  ", "\t", "\u3000", "'s", "'LL", "12", "4567", "Ⅻ", "²", "٣٤", "é", "日本語", "हिन्दी", "👩‍👩‍👧", "\u0301", "...", "\r", "word", "Word", "ß"]
    while len(result) < count:
        text = "".join(rng.choice(pieces) if rng.random() < 0.7 else chr(rng.choice([*range(32, 127), *range(0xA0, 0x2FFF)])) for _ in range(30))
        result.append(text)
    return result


def run(*command) -> str:
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gguf", type=Path)
    parser.add_argument("--commands", type=Path, default=Path(".build/release"), help="where sigma-run, sigma-convert and sigma-eval are")
    parser.add_argument("--lines", type=int, default=10_000)
    arguments = parser.parse_args()
    commands = arguments.commands
    model = DenseModel(arguments.gguf)
    tokenizer = tokenizer_of(model)
    failures = []

    def check(ok: bool, what: str):
        print(("ok    " if ok else "WRONG ") + what)
        if not ok:
            failures.append(what)

    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(model.field("tokenizer.chat_template"))
    prompt = template.render(messages=[{"role": "user", "content": QUESTION}], add_generation_prompt=True)
    expected = tokenizer.encode(prompt, add_special_tokens=False).ids
    reference = model.log_probs(expected)
    last = {text: reference[-1, tokenizer.token_to_id(text)] for text in KNOWN}
    check(
        all(abs(last[text] - value) < 0.01 for text, value in KNOWN.items()),
        "the reference: " + ", ".join(f"{text} {value:.3f}" for text, value in last.items()),
    )

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        own, wide = folder / "own.gguf", folder / "f32.gguf"
        run(commands / "sigma-convert", arguments.gguf, own)
        run(commands / "sigma-convert", arguments.gguf, wide, "--type", "f32")
        text = "\n".join(lines(arguments.lines))
        (folder / "lines.txt").write_bytes(text.encode())
        found = json.loads(run(commands / "sigma-eval", "tokenize", "--model", own, folder / "lines.txt"))
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        same = next((i for i, (a, b) in enumerate(zip(found, ids)) if a != b), None)
        check(found == ids, f"{len(ids)} tokens of {arguments.lines} lines" + ("" if same is None else f", token {same} differs"))

        for name, file, limit in [("q4_1", own, None), ("f32", wide, 1e-3)]:
            log = run(
                commands / "sigma-run", "--model", file, "--prompt", QUESTION, "--kv-type", "f32", "--max-tokens", 0, "--logprobs",
                len(model.field("tokenizer.ggml.tokens")), "--json",
            )  # fmt: skip
            events = [json.loads(line) for line in log.splitlines()]
            [ids] = [e["ids"] for e in events if e["event"] == "prompt"]
            check(ids == expected, f"{name}: the prompt's {len(ids)} tokens")
            [positions] = [e["positions"] for e in events if e["event"] == "prompt-logprobs"]
            worst = 0
            for i, position in enumerate(positions):
                for top in position["top"]:
                    worst = max(worst, abs(top["logprob"] - reference[i, top["id"]]))
            values = {t["id"]: t["logprob"] for t in positions[-1]["top"]}
            found = ", ".join(f"{text} {values[tokenizer.token_to_id(text)]:.3f}" for text in KNOWN)
            top = [p["top"][0]["id"] == int(reference[i].argmax()) for i, p in enumerate(positions)]
            check(
                limit is None or worst < limit,
                f"{name}: {found}; largest difference {worst:.2e} in {len(positions)} positions, same likeliest token in {sum(top)}",
            )
        answer = run(commands / "sigma-run", "--model", wide, "--prompt", QUESTION, "--temperature", 0, "--max-tokens", 32).strip()
        stop = {model.field("tokenizer.ggml.eos_token_id")}
        greedy = tokenizer.decode(model.greedy(expected, 32, stop))
        check(answer == greedy == "The capital of France is Paris.", f"the answer '{answer}', the reference's '{greedy}'")
    sys.exit(len(failures) > 0)


if __name__ == "__main__":
    main()
