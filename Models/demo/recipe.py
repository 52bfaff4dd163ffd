"""The demo model's recipe: its shape, its settings, and a schedule in which everything follows from the tokens seen so far.

The paper's recipe in small (sections 2.2, 3.2, 4.1). Three stages: pre-training, fine-tuning, and practice in rounds.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[1:1] = [str(HERE.parent / name) for name in ("reference", "training")]

from export import hf_config
from pretraining import stable_then_decay
from strategies import LoadBalancingLoss, ProgressiveSparsification

import tokenizer as bpe

LAYERS = 4
EXPERTS = 8
PROGRESSIVE = (3, 2, 1, 1)  # experts per token in training's first part; the lower layers balance badly at top-1


@dataclass(frozen=True)
class Settings:
    thinking_share: float = 0.85
    seed: int = 1
    pretrain_tokens: int = 5_000_000
    finetune_tokens: int = 6_800_000
    progressive_share: float = 0.9  # of pre-training
    peak: float = 2e-3  # learning rate
    warmup_steps: int = 100
    batch_tokens: tuple[int, int] = (2048, 4096)  # grows during the first 40 % of pre-training
    finetune_batch_tokens: int = 4096
    # (tokens, peak of the learning rate, tokens of its linear decay at the end) of each round of practice
    practice: tuple = ((6_068_871, 1.5e-3, 750_000), (8_530_000, 1.5e-3, 4_200_000))
    average: float = 0.995  # of the exported weights, per step
    balance: float = 1e-3  # coefficient of equation 1
    bf16: bool = True  # matrix products; weights, router and attention stay float32
    compiled: bool = True  # norms and rotations as fused loops, a third faster; needs a C++ compiler
    save_seconds: float = 120
    evaluate_every: int = 500
    evaluate_count: int = 40


def config_of(chosen: tuple[int, ...], theta: float) -> dict:
    """`config.json` while the layers use `chosen` experts a token and RoPE has base `theta`."""
    return hf_config(
        chosen, vocabulary=bpe.VOCABULARY, hidden=256, heads=4, kv_heads=2, head_dim=64, experts=EXPERTS, expert_size=256,
        context=bpe.CONTEXT, bos=bpe.VOCABULARY - len(bpe.SPECIALS), theta=theta,
    )


class Schedule:
    """What holds after a number of training tokens."""

    def __init__(self, settings: Settings):
        self.s = settings
        loss = LoadBalancingLoss(settings.balance)
        self.strategy = ProgressiveSparsification(PROGRESSIVE, settings.progressive_share, before=loss, after=loss)

    def round_start(self, number: int) -> int:
        """Tokens before a round of practice; before the round after the last one, all tokens."""
        return self.s.pretrain_tokens + self.s.finetune_tokens + sum(tokens for tokens, _, _ in self.s.practice[:number])

    @property
    def end(self) -> int:
        return self.round_start(len(self.s.practice))

    def stages(self) -> list[tuple[str, int]]:
        """Name and first token of each stage."""
        rounds = [(f"practice {number + 1}", self.round_start(number)) for number in range(len(self.s.practice))]
        return [("pre-training", 0), ("fine-tuning", self.s.pretrain_tokens), *rounds]

    def progress(self, tokens: int) -> float:
        """The share of pre-training that is done; above 1 in the later stages."""
        return tokens / self.s.pretrain_tokens

    def finetuning(self, tokens: int) -> bool:
        return tokens >= self.s.pretrain_tokens

    def practised(self, tokens: int) -> int:
        """The round of practice, from 0; below 0 before practice."""
        return max((i for i in range(len(self.s.practice)) if tokens >= self.round_start(i)), default=-1)

    def experts_per_token(self, tokens: int) -> tuple[int, ...]:
        return self.strategy.experts_per_token(LAYERS, self.progress(tokens))

    def theta(self, tokens: int) -> float:
        return 1e6 if self.finetuning(tokens) else 1e4

    def learning_rate(self, tokens: int, step: int) -> float:
        """The paper's shape in pre-training; the fine-tuning stage starts again at 0.6, and each round of practice warms up to a
        peak of its own."""
        number = self.practised(tokens)
        if number >= 0:
            _, peak, decay = self.s.practice[number]
            warm = min(1.0, (tokens - self.round_start(number) + 1) / (self.s.warmup_steps * self.s.finetune_batch_tokens))
            left = min(1.0, max(0.0, self.round_start(number + 1) - tokens) / decay)
            return peak * min(warm, 0.01 + 0.99 * left)
        if self.finetuning(tokens):
            part = (tokens - self.s.pretrain_tokens) / self.s.finetune_tokens
            shape = 0.6 + (0.02 - 0.6) * min(1.0, part)
        else:
            shape = stable_then_decay(self.progress(tokens))
        return self.s.peak * shape * min(1.0, (step + 1) / self.s.warmup_steps)

    def batch_size(self, tokens: int) -> int:
        """Tokens of the next batch."""
        if self.finetuning(tokens):
            return self.s.finetune_batch_tokens
        low, high = self.s.batch_tokens
        return int(low + (high - low) * min(1.0, self.progress(tokens) / 0.4))
