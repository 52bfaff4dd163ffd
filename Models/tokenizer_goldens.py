"""Makes Tests/Fixtures/tokenizer: small vocabularies and what the reference tokenizers make of some texts.

    python -m venv venv && venv/bin/pip install tokenizers==0.23.3 tiktoken==0.14.0
    venv/bin/python Models/tokenizer_goldens.py

NAME.vocab   first line `pattern normalizer rule`, then for each id `kind bytes-in-hex` (kinds as in GGUF: 1 normal, 3 control, 4 added,
             5 unused), an empty line, and for each merge `left right` in ids.
NAME.cases   for each case, between tabs: S (specials are recognised) or O (they are ordinary characters), the text's UTF-8 in hex, ids.
"""

import json
import pathlib
import random
import unicodedata

import tiktoken
import tokenizers
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers, trainers

OUTPUT = pathlib.Path(__file__).resolve().parent.parent / "Tests" / "Fixtures" / "tokenizer"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
O200K = "|".join(
    [
        r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
        r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
        r"""\p{N}{1,3}""",
        r""" ?[^\s\p{L}\p{N}]+[\r\n/]*""",
        r"""\s*[\r\n]+""",
        r"""\s+(?!\S)""",
        r"""\s+""",
    ]
)
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
PATTERNS = {"gpt2": GPT2, "qwen2": QWEN2, "o200k": O200K, "llama3": LLAMA3}

CONTROL = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>", "<|end"]
ADDED = ["<think>", "</think>", "<tool>", "<tool>>"]

PROSE = """\
The lighthouse keeper's daughter counted ships: one, two, three, and then a hundred more. She'd never seen so many; they'll
be gone by morning, she thought, and I've nothing to write home about. "Don't," said the wind. WE'RE LATE, WE'LL RUN, YOU'D BETTER HURRY!

    for i in range(10):
        if total[i] != 0 and i % 3 == 2:
            print("row", i, total[i] // 17)   # 1234567 rows, 3.14159 of them
\tif (a->b && c) { return x / y; } // done
https://example.org/a/b/c.html?q=1&r=22

Der Nachtw\u00e4chter z\u00e4hlte f\u00fcnf Stra\u00dfenlaternen. L'\u00e9t\u00e9, la mer \u00e9tait d\u00e9j\u00e0 loin, n'est-ce pas\u00a0? El ni\u00f1o pregunt\u00f3: \u00bfy ma\u00f1ana?
\u041c\u0430\u044f\u043a \u0441\u0442\u043e\u044f\u043b \u043d\u0430 \u0441\u043a\u0430\u043b\u0435, \u0438 \u0441\u0432\u0435\u0442 \u0435\u0433\u043e \u0431\u044b\u043b \u0432\u0438\u0434\u0435\u043d \u0437\u0430 \u0434\u0432\u0430\u0434\u0446\u0430\u0442\u044c \u043c\u0438\u043b\u044c. \u039f \u03c6\u03ac\u03c1\u03bf\u03c2 \u03ad\u03bc\u03b5\u03b9\u03bd\u03b5 \u03b1\u03bd\u03b1\u03bc\u03bc\u03ad\u03bd\u03bf\u03c2.
\u706f\u5854\u5728\u5c71\u4e0a\uff0c\u591c\u91cc\u5f88\u4eae\u3002\u706f\u53f0\u306e\u5149\u306f\u9060\u304f\u307e\u3067\u5c4a\u304f\u3002\ub4f1\ub300\uc758 \ubd88\ube5b\uc774 \uba40\ub9ac \ubcf4\uc778\ub2e4. \u0627\u0644\u0645\u0646\u0627\u0631\u0629 \u0628\u0639\u064a\u062f\u0629 \u062c\u062f\u0627.
\u0930\u093e\u0924 \u092e\u0947\u0902 \u0926\u0940\u092a \u091c\u0932\u0924\u093e \u0939\u0948\u0964 \u0e1b\u0e23\u0e30\u0e20\u0e32\u0e04\u0e32\u0e23\u0e2d\u0e22\u0e39\u0e48\u0e44\u0e01\u0e25
"""

TEXTS = [
    "", " ", "\n", "a", "0", ".", "'", "'s", "'S", "'\u017f", "x'\u017f", "X'\u017fx", "it's IT'S it'S 'll 'LL 'Ll 'lL 're've'm'd't",
    "  two", "   three\n\n\n  x", " \n \r\n\t \n x  ", "a\u0085b \u3000c\u2028\u2029d\u200be\ufefff\x1cg\x1fh\u180ei", "\r\n\r\na/\n//\r/b",
    "1 12 123 1234 12345", "\u0661\u0662\u0663\u0664 \u2167\u00bd\u00b2 \u0967\u0968", "HTMLParser XMLHttpRequest \u01c5ab \u02b0a A\u4e2dB's \u4e2dAB",
    "e\u0301 E\u0301a \u0301 \u0301AB \u0301\u0302 .\u0301x \u20dd", "\u212b \u1100\u1161\u11a8 \uac00\u11a8 q\u0323\u0307 q\u0307\u0323 \u0f73\u0334 \u0958 \u2126",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f", "\x00\x01\x7f\u0080\u00ad", "\u0378\U000e0fff\U0010ffff\ufffe\ud7ff\ue000",
    "<|user|>hello<|end|><|assistant|><think></think>yes<|endoftext|>", "<|end|><|end|>  <|end", "<|end|", "a<|end|>\n<|end|>b \n", "<tool>><tool><<tool>",
    "<|endoftext|<think", "lighthouse lightship unreachable  unreachable", "a" * 400, " " * 300, "=-" * 200, "\u4e2d" * 120, "ab\n" * 60, PROSE,
]


def random_texts(generator, count):
    by_category = {}
    for code in range(0x32000):
        if not 0xD800 <= code < 0xE000:
            by_category.setdefault(unicodedata.category(chr(code)), []).append(chr(code))
    categories = sorted(by_category)
    dense = list(" \n\raA'sS\u017f1!/\u0301\u4e2d\u02b0\u01c5\tLleR")
    pieces = dense + CONTROL + ADDED + PROSE.split(" ")
    for _ in range(count):
        kind = generator.random()
        if kind < 0.4:
            yield "".join(generator.choice(dense) for _ in range(generator.randint(1, 12)))
        elif kind < 0.7:
            yield "".join(generator.choice(by_category[generator.choice(categories)]) for _ in range(generator.randint(1, 8)))
        else:
            yield "".join(generator.choice(pieces) for _ in range(generator.randint(1, 8)))


def byte_alphabet():
    """GPT-2's printable characters, by byte."""
    characters, extra = [], 256
    for byte in range(256):
        if 0x21 <= byte <= 0x7E or 0xA1 <= byte <= 0xAC or 0xAE <= byte <= 0xFF:
            characters.append(chr(byte))
        else:
            characters.append(chr(extra))
            extra += 1
    return characters


ALPHABET = byte_alphabet()
BYTES = {character: byte for byte, character in enumerate(ALPHABET)}


def to_bytes(token):
    return bytes(BYTES[character] for character in token)


def with_pattern(tokenizer, pattern):
    if pattern == "smollm":
        digits, byte_level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
        return
    split = pre_tokenizers.Split(Regex(PATTERNS[pattern]), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    if pattern == "gpt2":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def train(pattern, size):
    """Merges, as pairs of tokens in the byte alphabet."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    with_pattern(tokenizer, pattern)
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=ALPHABET, show_progress=False)
    tokenizer.train_from_iterator([PROSE] * 3, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in merges]


def write(name, header, rows, merges, cases):
    lines = [header] + [f"{kind} {token.hex()}" for kind, token in rows]
    lines += [""] + [f"{left} {right}" for left, right in merges]
    (OUTPUT / f"{name}.vocab").write_text("\n".join(lines) + "\n")
    lines = [f"{mode}\t{text.encode().hex()}\t{','.join(map(str, ids))}" for mode, text, ids in cases]
    (OUTPUT / f"{name}.cases").write_text("\n".join(lines) + "\n")


def all_cases(seed):
    generator = random.Random(seed)
    yield from (("S", text) for text in TEXTS)
    yield from (("O", text) for text in TEXTS if "<" in text)
    yield from ((generator.choice("SO"), text) for text in random_texts(generator, 180))


def hugging_face(name, pattern, normalizer, ignoring, seed, lacking=()):
    merges = train(pattern, 256 + 360)
    kept = [character for byte, character in enumerate(ALPHABET) if byte not in lacking]
    vocabulary = {character: index for index, character in enumerate(kept)}
    for left, right in merges:
        vocabulary.setdefault(left + right, len(vocabulary))
    # No merge leads to this one.
    vocabulary[ALPHABET[0x20] + "unreachable"] = len(vocabulary)
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=ignoring))
    with_pattern(tokenizer, pattern)
    if normalizer == "nfc":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in ADDED])
    cases = []
    for mode, text in all_cases(seed):
        tokenizer.encode_special_tokens = mode == "O"
        cases.append((mode, text, tokenizer.encode(text, add_special_tokens=False).ids))
    rows = [(1, to_bytes(token)) for token in vocabulary]
    rows += [(3, token.encode()) for token in CONTROL] + [(4, token.encode()) for token in ADDED]
    pairs = [(vocabulary[left], vocabulary[right]) for left, right in merges]
    write(name, f"{pattern} {normalizer} {'ignoring' if ignoring else 'listed'}", rows, pairs, cases)


def by_rank(name, seed):
    tokens = [bytes([byte]) for byte in range(256)]
    for left, right in train("o200k", 256 + 420):
        token = to_bytes(left + right)
        if token not in tokens:
            tokens.append(token)
    # An id without a token, and a row that is never used, between the ranks and the specials.
    control = [token for token in CONTROL if token != "<|end"]
    specials = {token: len(tokens) + 2 + index for index, token in enumerate(control)}
    encoding = tiktoken.Encoding(
        name, pat_str=O200K, mergeable_ranks={token: rank for rank, token in enumerate(tokens)}, special_tokens=specials
    )
    cases = []
    for mode, text in all_cases(seed):
        ids = encoding.encode(text, allowed_special="all") if mode == "S" else encoding.encode_ordinary(text)
        cases.append((mode, text, ids))
    rows = [(1, token) for token in tokens] + [(5, b""), (5, b"<|dummy|>")] + [(3, token.encode()) for token in specials]
    write(name, "o200k none byRank", rows, [], cases)


if __name__ == "__main__":
    OUTPUT.mkdir(parents=True, exist_ok=True)
    by_rank("o200k", 1)
    hugging_face("gpt2", "gpt2", "none", False, 2)
    hugging_face("qwen2", "qwen2", "nfc", False, 3)
    hugging_face("qwen2-ignoring-merges", "qwen2", "nfc", True, 4)
    hugging_face("llama3", "llama3", "none", True, 5)
    hugging_face("smollm", "smollm", "none", False, 6)
    # SmolLM2's vocabulary has no tokens for some bytes either.
    hugging_face("lacking-bytes", "smollm", "none", False, 7, [0x01, 0x04, 0x13, 0x1C, 0x7F, 0xC0, 0xC1, 0xCC, *range(0xF1, 0x100)])
