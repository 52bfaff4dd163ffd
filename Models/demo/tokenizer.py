"""Makes the demo's byte-level BPE tokenizer, and encodes chat pieces with it.

    python Models/demo/tokenizer.py OUTPUT_FOLDER
"""

import random
import sys
from pathlib import Path

from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "training"))

from bpe import SPECIALS, make_tokenizer, write_tokenizer

from kinds import KINDS
from tasks import SYSTEM_PROMPTS, THINKING_PROMPT, conversation, sample

VOCABULARY = 512
CONTEXT = 4096
CLOSING_PHRASE = "\nI have to stop thinking here.\n"


def corpus(count: int = 20_000):
    rng = random.Random(0)
    for _ in range(count):
        problem = sample(rng, tuple(KINDS))
        pieces = conversation([problem], rng.random() < 0.8, rng.choice(SYSTEM_PROMPTS))
        yield from (text for text, _ in pieces if text not in SPECIALS)


def make(folder: Path):
    chat = {"thinking_prompt": THINKING_PROMPT, "opens_thinking": True, "closing_phrase": CLOSING_PHRASE}
    write_tokenizer(folder, make_tokenizer(corpus(), VOCABULARY), context=CONTEXT, chat=chat)


class ChatTokenizer:
    """Encodes pieces: a special token is one id, and any other text is encoded as one string in which specials are ordinary."""

    def __init__(self, folder: Path):
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.specials = {text: self.tokenizer.token_to_id(text) for text in SPECIALS}
        self.stop = {self.specials["<|end|>"], self.specials["<|endoftext|>"]}

    def encode(self, piece: str) -> list[int]:
        if piece in self.specials:
            return [self.specials[piece]]
        return self.tokenizer.encode(piece, add_special_tokens=False).ids

    def encode_pieces(self, pieces: list[str]) -> list[int]:
        return [token for piece in pieces for token in self.encode(piece)]

    def decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
