"""Trains the demo model: Sigma-MoE's architecture and recipe (paper, sections 2.2 and 3.2) at a size for one CPU core.

    python Models/demo/train.py               runs, or goes on from the last state in .training/full/
    python Models/demo/train.py --from C      where there is no state: the last round of practice, from checkpoint C's weights
    python Models/demo/train.py --export      writes the last state as a Hugging Face checkpoint to checkpoint/

Three stages: pre-training, fine-tuning, and practice, in rounds and with every kind of question. What is exported is a running
average of the weights, which does at any moment what decaying the learning rate would.
"""

import argparse
import csv
import ctypes
import json
import math
import random
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "reference"))

from sigma_checkpoint import load_model, save_tensors, tensors_of
from sigma_config import Config, inverse_frequencies
from sigma_reference import Layout, Sigma

import fast_steps
import tokenizer as bpe
from curriculum import lesson
from evaluate import accuracy
from tasks import SYSTEM_PROMPTS, conversation, sample

EXPERTS = 8
SPARSE = (1, 1, 1, 1)
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


def hf_config(chosen: tuple[int, ...], theta: float) -> dict:
    """`config.json` as the checkpoint is: the per-layer list is there while the lower layers use more experts."""
    return {
        "architectures": ["SigmaForCausalLM"],
        "model_type": "sigma",
        "torch_dtype": "bfloat16",
        "vocab_size": bpe.VOCABULARY,
        "hidden_size": 256,
        "num_hidden_layers": len(chosen),
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "intermediate_size": 1024,
        "moe_intermediate_size": 256,
        "n_routed_experts": EXPERTS,
        "n_shared_experts": None,
        "num_experts_per_tok": 1,
        "num_experts_per_tok_layer_wise": None if chosen == SPARSE else list(chosen),
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "first_k_dense_replace": 0,
        "qk_layernorm": True,
        "attention_bias": False,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": theta,
        "rope_scaling": None,
        "sliding_window": None,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
        "bos_token_id": bpe.VOCABULARY - len(bpe.SPECIALS),
        "eos_token_id": bpe.VOCABULARY - len(bpe.SPECIALS),
    }


class Balance:
    """Load balance of each MoE layer over one global batch: equation 1, and the share of tokens per expert."""

    def __init__(self, model: Sigma):
        self.losses, self.loads = [], []
        for layer in model.layers:
            layer.mlp.observe = self.observe

    def observe(self, scores: torch.Tensor, chosen: torch.Tensor):
        if not torch.is_grad_enabled():
            return
        f = chosen.flatten().bincount(minlength=EXPERTS) / chosen.numel()
        p = (scores / scores.sum(-1, keepdim=True)).mean(0)  # gating probability: sigmoid scores, made to sum 1
        self.losses.append(EXPERTS * (f * p).sum())
        self.loads.append(f.tolist())

    def take(self) -> tuple[torch.Tensor, list[list[float]]]:
        loss, loads = torch.stack(self.losses).sum(), self.loads
        self.losses, self.loads = [], []
        return loss, loads


class Trainer:
    def __init__(self, settings: Settings, folder: Path, start: Path | None = None):
        self.s, self.folder = settings, folder
        fast_steps.use(settings.compiled)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if not (folder / name).exists():
                (folder / name).write_bytes((HERE / "checkpoint" / name).read_bytes())
        self.tokenizer = bpe.ChatTokenizer(folder)
        torch.manual_seed(settings.seed)
        self.model = Sigma(Config.parse(hf_config(PROGRESSIVE, 1e4)))
        for name, parameter in self.model.named_parameters():
            if "norm" not in name:
                torch.nn.init.normal_(parameter, std=0.02)
        matrices = [p for p in self.model.parameters() if p.dim() > 1]
        norms = [p for p in self.model.parameters() if p.dim() == 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}],
            lr=0.0, betas=(0.9, 0.95), eps=1e-9, fused=True,
        )
        self.balance = Balance(self.model)
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.parameters = list(self.model.parameters())
        self.averaged = [p.detach().clone() for p in self.parameters]
        self.saved = time.monotonic()
        if self.state_file.exists():
            state = torch.load(self.state_file)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]
            for mine, stored in zip(self.averaged, state.get("averaged", self.parameters), strict=True):
                mine.copy_(stored.detach())
            self.keep_curves(self.folder / "curves.csv")
        elif start:
            self.begin_from(start)
        self.enter_phase()

    def begin_from(self, checkpoint: Path):
        """The last round of practice, from a checkpoint's weights instead of the state before it. Steps are counted on from those in
        the `curves.csv` beside the checkpoint, so that no batch comes again."""
        self.model.load_state_dict(load_model(checkpoint).state_dict())
        for mine, stored in zip(self.averaged, self.parameters, strict=True):
            mine.copy_(stored.detach())
        self.tokens = self.round_start(len(self.s.practice) - 1) + self.s.finetune_batch_tokens  # the round before may have ended in a batch
        last = self.keep_curves(checkpoint.parent / "curves.csv")
        self.step, self.tokens, self.seconds = int(last["step"]), int(last["tokens"]), float(last["seconds"])

    def keep_curves(self, file: Path) -> dict[str, str] | None:
        """Rows up to where this run stands (a run that was killed has written more). Returns the last one."""
        rows = [row for row in csv.DictReader(file.open()) if int(row["tokens"]) <= self.tokens] if file.exists() else []
        if rows:
            with (self.folder / "curves.csv").open("w", newline="") as out:
                writer = csv.DictWriter(out, rows[0])
                writer.writeheader()
                writer.writerows(rows)
        return rows[-1] if rows else None

    @property
    def state_file(self) -> Path:
        return self.folder / "state.pt"

    def save(self):
        state = dict(model=self.model.state_dict(), optimizer=self.optimizer.state_dict(), step=self.step, tokens=self.tokens,
                     seconds=self.seconds, averaged=self.averaged)
        torch.save(state, self.state_file.with_suffix(".new"))
        self.state_file.with_suffix(".new").replace(self.state_file)
        self.saved = time.monotonic()

    @torch.no_grad()
    def exchange(self):
        """The averaged weights take the model's place, and the other way round."""
        for mine, averaged in zip(self.parameters, self.averaged):
            mine.data, averaged.data = averaged.data, mine.data

    # The schedule: everything follows from the tokens seen so far.

    @property
    def finetuning(self) -> bool:
        return self.tokens >= self.s.pretrain_tokens

    def round_start(self, number: int) -> int:
        """Tokens before a round of practice; before the round after the last one, all tokens."""
        return self.s.pretrain_tokens + self.s.finetune_tokens + sum(tokens for tokens, _, _ in self.s.practice[:number])

    @property
    def practised(self) -> int:
        """The round of practice, from 0; below 0 before practice."""
        return max((i for i in range(len(self.s.practice)) if self.tokens >= self.round_start(i)), default=-1)

    @property
    def end(self) -> int:
        return self.round_start(len(self.s.practice))

    @property
    def chosen(self) -> tuple[int, ...]:
        return PROGRESSIVE if self.tokens < self.s.progressive_share * self.s.pretrain_tokens else SPARSE

    @property
    def theta(self) -> float:
        return 1e6 if self.finetuning else 1e4

    def enter_phase(self):
        for layer, k in zip(self.model.layers, self.chosen):
            layer.mlp.gate.k = k
        config = replace(self.model.c, chosen=self.chosen, rope_theta=self.theta)
        self.model.c = config
        self.model.frequencies, self.model.rope_magnitude = inverse_frequencies(config)

    def learning_rate(self) -> float:
        """Warm-up, stable, cosine to 0.6, linear to 0.1 of the peak as in the paper; the fine-tuning stage starts again at 0.6,
        and each round of practice warms up to a peak of its own."""
        number = self.practised
        if number >= 0:
            _, peak, decay = self.s.practice[number]
            warm = min(1.0, (self.tokens - self.round_start(number) + 1) / (self.s.warmup_steps * self.s.finetune_batch_tokens))
            left = min(1.0, max(0.0, self.round_start(number + 1) - self.tokens) / decay)
            return peak * min(warm, 0.01 + 0.99 * left)
        done = self.tokens / self.s.pretrain_tokens
        if self.finetuning:
            part = (self.tokens - self.s.pretrain_tokens) / self.s.finetune_tokens
            shape = 0.6 + (0.02 - 0.6) * min(1.0, part)
        elif done < 0.6:
            shape = 1.0
        elif done < 0.9:
            shape = 0.6 + 0.4 * 0.5 * (1 + math.cos(math.pi * (done - 0.6) / 0.3))
        else:
            shape = 0.6 + (0.1 - 0.6) * (done - 0.9) / 0.1
        return self.s.peak * shape * min(1.0, (self.step + 1) / self.s.warmup_steps)

    def batch_size(self) -> int:
        if self.finetuning:
            return self.s.finetune_batch_tokens
        low, high = self.s.batch_tokens
        return int(low + (high - low) * min(1.0, self.tokens / self.s.pretrain_tokens / 0.4))

    def batch(self) -> tuple[list[list[int]], list[list[bool]]]:
        """Conversations of one turn; in the fine-tuning stage also of several. Seeded by the step, so resuming repeats nothing."""
        rng, size = random.Random(f"{self.s.seed} {self.step}"), self.batch_size()
        rows, learned, total = [], [], 0
        while total < size:
            turns = rng.choice((1, 1, 1, 1, 2)) if self.finetuning else 1
            thinking = rng.random() < self.s.thinking_share
            problems = []
            while len(problems) < turns:
                problems.append(sample(rng, *lesson(self.tokens)))
            system = rng.choice(SYSTEM_PROMPTS) if rng.random() < 0.1 else ""
            ids, mask = [], []
            for text, learn in conversation(problems, thinking, system):
                piece = self.tokenizer.encode(text)
                ids += piece
                mask += [learn] * len(piece)
            # The last conversation is cut off, so that every batch has the same size (and products have the same shape).
            ids, mask = ids[: size - total + 1], mask[: size - total + 1]
            rows.append(ids)
            learned.append(mask)
            total += len(ids) - 1
        return rows, learned

    def train_step(self) -> dict:
        rows, learned = self.batch()
        # Every row but its last token is input; the next token is the target.
        tokens = torch.tensor([t for row in rows for t in row[:-1]])
        targets = torch.tensor([t for row in rows for t in row[1:]])
        wanted, counts = fast_steps.padded(torch.tensor([m for mask in learned for m in mask[1:]]).nonzero()[:, 0], 256)
        targets = torch.where(counts, targets[wanted], -100)
        rate = self.learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16, enabled=self.s.bf16):
            x, _ = self.model.hidden(tokens, Layout.of([len(row) - 1 for row in rows]))
            logits = self.model.lm_head(x.index_select(0, wanted)).float()
        loss = F.cross_entropy(logits, targets, ignore_index=-100)
        balance, loads = self.balance.take()
        self.optimizer.zero_grad(set_to_none=True)
        (loss + self.s.balance * balance).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        torch._foreach_lerp_(self.averaged, self.parameters, 1 - min(self.s.average, (self.step + 1) / (self.step + 10)))
        self.step += 1
        self.tokens += tokens.numel()
        self.enter_phase()
        right = (logits.detach().argmax(-1) == targets)[counts].float().mean().item()
        return dict(loss=loss.item(), balance=balance.item() / len(loads), norm=norm.item(), rate=rate, right=right, loads=loads)

    def evaluate(self) -> dict[str, float]:
        problems = [sample(random.Random(f"held out {i}"), *lesson(self.tokens), held_out=True) for i in range(self.s.evaluate_count)]
        self.exchange()
        with torch.no_grad():
            scores = {name: accuracy(self.model, self.tokenizer, problems, thinking) for name, thinking in (("thinking", True), ("direct", False))}
        self.exchange()
        return scores

    def log(self, row: dict):
        file = self.folder / "curves.csv"
        fresh = not file.exists()
        with file.open("a", newline="") as out:
            writer = csv.writer(out)
            loads = row.pop("loads")
            names = [f"load{i}_{end}" for i in range(len(loads)) for end in ("min", "max")]
            if fresh:
                writer.writerow([*row, *names])
            values = [round(f(load), 4) for load in loads for f in (min, max)]
            writer.writerow([*(round(v, 6) if isinstance(v, float) else v for v in row.values()), *values])

    def run(self):
        stop = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.append(True))
        while self.tokens < self.end and not stop:
            start = time.perf_counter()
            result = self.train_step()
            self.seconds += time.perf_counter() - start
            scores = {}
            if self.step % self.s.evaluate_every == 0 or self.tokens >= self.end:
                scores = self.evaluate()
            if self.step % 10 == 0 or scores:
                row = dict(step=self.step, tokens=self.tokens, seconds=self.seconds, **result)
                row.update(thinking=scores.get("thinking", ""), direct=scores.get("direct", ""))
                self.log({k: v for k, v in row.items()})
            if self.step % 50 == 0 or scores:
                loads = " ".join(f"{min(l) * EXPERTS:.2f}-{max(l) * EXPERTS:.2f}" for l in result["loads"])
                print(f"step {self.step} tokens {self.tokens / 1e6:.2f}M {self.seconds:.0f}s loss {result['loss']:.4f} right {result['right']:.4f} "
                      f"balance {result['balance']:.3f} load {loads} rate {result['rate']:.1e} norm {result['norm']:.2f} "
                      + " ".join(f"{k} {v:.1%}" for k, v in scores.items()), flush=True)
            if time.monotonic() - self.saved > self.s.save_seconds or self.tokens >= self.end or stop:
                self.save()

    def export(self, target: Path):
        for file in target.glob("*"):
            if not file.name.startswith("tokenizer"):
                file.unlink()
        target.mkdir(parents=True, exist_ok=True)
        self.exchange()
        save_tensors(target, tensors_of(self.model), torch.bfloat16)
        (target / "config.json").write_text(json.dumps(hf_config(self.chosen, self.theta), indent=2) + "\n")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (target / name).write_bytes((self.folder / name).read_bytes())
        self.exchange()
        size = sum(file.stat().st_size for file in target.iterdir())
        print(f"{target}: step {self.step}, {self.tokens:,} tokens, {size:,} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--state", type=Path, default=HERE / ".training" / "full")
    parser.add_argument("--export", type=Path, nargs="?", const=HERE / "checkpoint", metavar="FOLDER")
    parser.add_argument("--from", dest="start", type=Path, metavar="CHECKPOINT", help="where there is no state yet: begin the last round of practice from these weights")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings, for example pretrain_tokens=20000000")
    arguments = parser.parse_args()
    changes = {}
    for text in arguments.set:
        name, _, value = text.partition("=")
        changes[name] = type(getattr(Settings, name))(json.loads(value))
    torch.set_num_threads(1)
    if sys.platform == "linux":
        # glibc returns every large block to the system, and each new one costs its page faults again: keep them.
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
    trainer = Trainer(Settings(**changes), arguments.state, arguments.start)
    trainer.export(arguments.export) if arguments.export else trainer.run()


if __name__ == "__main__":
    main()
