"""Text for the study: documentation that the machine it runs on has, or any folder of text.

    python Models/study/data.py [--text FOLDER] [--state .study]

Writes STATE/corpus/: the tokenizer, the tokens to train on, the held-out text, and `corpus.json`, which says what went in. The same
files give the same bytes. Documents appear once, in an order that comes from their content; one in forty is held out.
"""

import argparse
import ast
import functools
import gzip
import hashlib
import html
import json
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[1:1] = [str(HERE.parent / name) for name in ("reference", "training")]

from bpe import make_tokenizer, write_tokenizer
from tokenizers import Tokenizer

VOCABULARY = 2048
CONTEXT = 128
END = "<|endoftext|>"
HELD_OUT = 40  # one document in so many
SHORTEST = 500  # characters of a document
SOURCE_LIMIT = 14_000_000  # characters from each source
TOKENIZER_LIMIT = 6_000_000  # characters that the tokenizer is made from
HELD_OUT_LIMIT = 200_000  # characters of held-out text

ROFF_ESCAPES = {
    "\\-": "-", "\\(aq": "'", "\\(co": "(c)", "\\(bu": "*", "\\(em": "--", "\\(en": "-", "\\e": "\\", "\\ ": " ",
}


def manual_pages() -> Iterator[str]:
    """The English ones, as plain text: requests and font changes of roff are dropped, and their words are kept."""
    for file in Path("/usr/share/man").glob("man[1-8]/*.gz"):
        if not file.is_symlink():
            yield plain_roff(gzip.decompress(file.read_bytes()).decode("utf-8", "ignore"))


def plain_roff(text: str) -> str:
    text = re.sub(r"^[.'](\\\"|\s*(de|ie|el|if|ds|tr|nr|so)\b).*$", "", text, flags=re.M)
    text = re.sub(r"\\f(\[\w*\]|\(..|.)|\\[&|^/,%:cdu]|\\s[-+]?\d+", "", text)
    for escape, sign in ROFF_ESCAPES.items():
        text = text.replace(escape, sign)
    text = re.sub(r"\\\(..|\\\[\w+\]|\\\*(\(..|\[\w+\]|.)", "", text)
    text = re.sub(r"^[.'][A-Za-z]{1,2} ?", "", text, flags=re.M)
    return re.sub(r"\n{3,}", "\n\n", text)


def python_documentation() -> Iterator[str]:
    """The documentation strings of this Python's standard library, a document for each module."""
    for file in Path(sysconfig.get_paths()["stdlib"]).rglob("*.py"):
        if "site-packages" in file.parts or "test" in file.parts or "tests" in file.parts:
            continue
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):
            continue
        named = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        strings = ((getattr(node, "name", file.stem), ast.get_docstring(node)) for node in ast.walk(tree) if isinstance(node, named))
        yield "\n\n".join(f"{name}\n{string}" for name, string in strings if string)


def rust_documentation() -> Iterator[str]:
    """Rust's books and library pages, where they are installed (rustup's or the distribution's), of one tool chain."""
    places = [*sorted(Path.home().glob(".rustup/toolchains/stable*/share/doc/rust/html")), Path("/usr/share/doc/rust-doc/html")]
    for folder in [place for place in places if place.exists()][:1]:
        for file in folder.rglob("*.html"):
            if file.name != "print.html" and "src" not in file.relative_to(folder).parts:
                yield plain_html(file.read_text("utf-8", "ignore"))


def plain_html(page: str) -> str:
    main = re.search(r"<main.*?</main>|<section id=\"main-content\".*?</section>", page, re.S)
    page = re.sub(r"<(script|style|nav|button|svg)\b.*?</\1>", "", main.group() if main else page, flags=re.S)
    page = re.sub(r"</(p|li|pre|h\d|div|tr|dt|dd)>", "\n", page)
    return re.sub(r"\n\s*\n+", "\n\n", html.unescape(re.sub(r"<[^>]+>", "", page)))


def folder_of_text(folder: Path) -> Iterator[str]:
    for file in folder.rglob("*"):
        if file.is_file():
            yield file.read_text("utf-8", "ignore")


def documents(source: Iterator[str]) -> list[str]:
    """Every text once, ordered by the hash of its content, up to `SOURCE_LIMIT` characters."""
    unique = {hashlib.sha256(text.encode()).digest(): text.strip() for text in source if len(text.strip()) >= SHORTEST}
    kept, size = [], 0
    for key in sorted(unique):
        if size > SOURCE_LIMIT:
            break
        kept.append(unique[key])
        size += len(unique[key])
    return kept


def shuffled(texts: list[str]) -> list[str]:
    return sorted(texts, key=lambda text: hashlib.sha256(b"order" + text.encode()).digest())


def make(corpus: Path, text: Path | None):
    sources = {"text": folder_of_text(text)} if text else {
        "manual pages": manual_pages(), "Python documentation": python_documentation(), "Rust documentation": rust_documentation(),
    }
    found = {name: documents(source) for name, source in sources.items()}
    every = shuffled([text.replace(END, "") for texts in found.values() for text in texts])
    held_out, train = every[::HELD_OUT], [text for i, text in enumerate(every) if i % HELD_OUT]

    corpus.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(limited(train, TOKENIZER_LIMIT), VOCABULARY)
    write_tokenizer(corpus, tokenizer, CONTEXT)
    end = tokenizer.token_to_id(END)
    tokens = np.concatenate([np.array([*tokenizer.encode(text).ids, end], dtype=np.uint16) for text in train])
    np.save(corpus / "train.npy", tokens)
    (corpus / "held-out.txt").write_text("\n\n".join(limited(held_out, HELD_OUT_LIMIT)))
    counts = np.bincount(tokens, minlength=VOCABULARY)
    about = {
        "sources": {name: {"documents": len(texts), "characters": sum(map(len, texts))} for name, texts in found.items()},
        "training_tokens": len(tokens),
        "most_frequent_token": tokenizer.decode([int(counts.argmax())]),
        "most_frequent_share": round(float(counts.max() / counts.sum()), 5),
        "sha256": hashlib.sha256(tokens.tobytes()).hexdigest(),
    }
    (corpus / "corpus.json").write_text(json.dumps(about, indent=2) + "\n")
    print(json.dumps(about, indent=2))


def limited(texts: list[str], characters: int) -> list[str]:
    """The first texts that together have at most about so many characters; always one."""
    kept, size = [], 0
    for text in texts:
        kept.append(text[: characters - size])
        size += len(text)
        if size >= characters:
            break
    return kept


class Corpus:
    """Tokens to train on in an order that a seed gives, and held-out tokens.

    Training reads windows of `CONTEXT` tokens that cover the text without overlap; they cross the ends of documents.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.about = json.loads((folder / "corpus.json").read_text())
        self.tokens = np.load(folder / "train.npy", mmap_mode="r")
        self.window_count = (len(self.tokens) - 1) // CONTEXT

    def batch(self, seed: int, step: int, windows: int) -> np.ndarray:
        """[windows, CONTEXT + 1], int64: inputs and, one further, targets. The same for every run of a seed."""
        epoch, first = divmod(step * windows, self.window_count - self.window_count % windows)
        order = np.random.default_rng((seed, epoch)).permutation(self.window_count)[first : first + windows]
        return np.stack([self.tokens[i * CONTEXT : i * CONTEXT + CONTEXT + 1] for i in order]).astype(np.int64)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_file(str(self.folder / "tokenizer.json"))

    def held_out(self) -> list[list[int]]:
        """The held-out text in windows of `CONTEXT` tokens, the last one shorter: as `sigma-eval routing` reads it."""
        ids = self.tokenizer.encode((self.folder / "held-out.txt").read_text()).ids
        return [ids[first : first + CONTEXT] for first in range(0, len(ids), CONTEXT)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path, metavar="FOLDER", help="text to use (default: the machine's documentation)")
    parser.add_argument("--state", type=Path, default=ROOT / ".study")
    arguments = parser.parse_args()
    make(arguments.state / "corpus", arguments.text)


if __name__ == "__main__":
    main()
