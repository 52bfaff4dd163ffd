"""Makes the demo's byte-level BPE tokenizer, and encodes chat pieces with it.

    python Models/demo/tokenizer.py OUTPUT_FOLDER
"""

import json
import random
import sys
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from kinds import KINDS
from tasks import SYSTEM_PROMPTS, THINKING_PROMPT, conversation, sample

VOCABULARY = 512
SPECIALS = (
    "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>",
    "<code_FIM_begin>", "<code_FIM_hole>", "<code_FIM_end>", "<|endofprompt|>",
)
# Qwen2's split: words with one leading non-letter, single digits, punctuation, line ends, white space.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CLOSING_PHRASE = "\nI have to stop thinking here.\n"


def corpus(count: int = 20_000):
    rng = random.Random(0)
    for _ in range(count):
        problem = sample(rng, tuple(KINDS))
        pieces = conversation([problem], rng.random() < 0.8, rng.choice(SYSTEM_PROMPTS))
        yield from (text for text, _ in pieces if text not in SPECIALS)


def make(folder: Path):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        corpus(),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY - len(SPECIALS), initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
        ),
    )
    assert tokenizer.get_vocab_size() == VOCABULARY - len(SPECIALS)
    # Added after training, so that they take the last ids in this order.
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIALS])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    added = {
        str(tokenizer.token_to_id(text)): {
            "content": text, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True,
        }
        for text in SPECIALS
    }
    config = {
        "added_tokens_decoder": added,
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "add_bos_token": False,
        "model_max_length": 4096,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "sigma_chat": {"thinking_prompt": THINKING_PROMPT, "opens_thinking": True, "closing_phrase": CLOSING_PHRASE},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


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
