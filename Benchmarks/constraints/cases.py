"""Reads schema cases and a tiktoken vocabulary; adds the tokens of every instance."""

import base64
import gzip
import json

import tiktoken

# The cut into words of o200k_base.
PATTERN = "|".join([
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
    r"""\p{N}{1,3}""",
    r""" ?[^\s\p{L}\p{N}]+[\r\n/]*""",
    r"""\s*[\r\n]+""",
    r"""\s+(?!\S)""",
    r"""\s+""",
])


def read_vocabulary(path):
    """Token bytes by number."""
    tokens = {}
    with open(path, "rb") as file:
        for line in file:
            text, number = line.split()
            tokens[int(number)] = base64.b64decode(text)
    return tokens


def encoding(tokens, with_end=False):
    special = {"<|endoftext|>": max(tokens) + 1} if with_end else {}
    return tiktoken.Encoding(
        "vocabulary", pat_str=PATTERN, mergeable_ranks={text: number for number, text in tokens.items()},
        special_tokens=special)


def read_cases(path, tokenizer):
    """Yields the cases of a file, with `tokens` for every test."""
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as file:
        for line in file:
            case = json.loads(line)
            for test in case["tests"]:
                test["tokens"] = tokenizer.encode(test["text"], disallowed_special=())
            yield case
