"""Trains the demo model: Sigma-MoE's architecture and recipe (paper, sections 2.2 and 3.2) at a size for one CPU core.

    python Models/demo/train.py               runs, or goes on from the last state in .training/full/
    python Models/demo/train.py --from C      where there is no state: the last round of practice, from checkpoint C's weights
    python Models/demo/train.py --export      writes the last state as a Hugging Face checkpoint to checkpoint/

Three stages: pre-training, fine-tuning, and practice, in rounds and with every kind of question. What is exported is a running
average of the weights, which does at any moment what decaying the learning rate would.
"""

import argparse
import csv
import json
import random
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from recipe import EXPERTS, HERE, Schedule, Settings, config_of  # first: it finds the other folders

import fast_steps
import tokenizer as bpe
from curriculum import lesson
from evaluate import accuracy
from export import TOKENIZER_FILES, set_experts_per_token, write_checkpoint
from pretraining import descend, new_model, optimizer_of
from process import StopRequest, save_state, use_one_core
from sigma_checkpoint import load_model
from sigma_config import inverse_frequencies
from sigma_reference import Layout
from strategies import RoutingLog, load_balancing_loss
from tasks import SYSTEM_PROMPTS, conversation, sample


class Trainer:
    def __init__(self, settings: Settings, folder: Path, start: Path | None = None):
        self.s, self.schedule, self.folder = settings, Schedule(settings), folder
        fast_steps.use(settings.compiled)
        folder.mkdir(parents=True, exist_ok=True)
        for name in TOKENIZER_FILES:
            if not (folder / name).exists():
                (folder / name).write_bytes((HERE / "checkpoint" / name).read_bytes())
        self.tokenizer = bpe.ChatTokenizer(folder)
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.model = new_model(self.config, settings.seed)
        self.optimizer = optimizer_of(self.model)
        self.routing = RoutingLog(self.model)
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
        # The round before may have ended in a batch.
        self.tokens = self.schedule.round_start(len(self.s.practice) - 1) + self.s.finetune_batch_tokens
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
        save_state(state, self.state_file)
        self.saved = time.monotonic()

    @torch.no_grad()
    def exchange(self):
        """The averaged weights take the model's place, and the other way round."""
        for mine, averaged in zip(self.parameters, self.averaged):
            mine.data, averaged.data = averaged.data, mine.data

    @property
    def config(self) -> dict:
        return config_of(self.schedule.experts_per_token(self.tokens), self.schedule.theta(self.tokens))

    def enter_phase(self):
        chosen = self.schedule.experts_per_token(self.tokens)
        set_experts_per_token(self.model, chosen)
        config = replace(self.model.c, chosen=chosen, rope_theta=self.schedule.theta(self.tokens))
        self.model.c = config
        self.model.frequencies, self.model.rope_magnitude = inverse_frequencies(config)

    def batch(self) -> tuple[list[list[int]], list[list[bool]]]:
        """Conversations of one turn; in the fine-tuning stage also of several. Seeded by the step, so resuming repeats nothing."""
        rng, size = random.Random(f"{self.s.seed} {self.step}"), self.schedule.batch_size(self.tokens)
        rows, learned, total = [], [], 0
        while total < size:
            turns = rng.choice((1, 1, 1, 1, 2)) if self.schedule.finetuning(self.tokens) else 1
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
        with torch.autocast("cpu", torch.bfloat16, enabled=self.s.bf16):
            x, _ = self.model.hidden(tokens, Layout.of([len(row) - 1 for row in rows]))
            logits = self.model.lm_head(x.index_select(0, wanted)).float()
        loss = F.cross_entropy(logits, targets, ignore_index=-100)
        routed, strategy = self.routing.take(), self.schedule.strategy
        rate = self.schedule.learning_rate(self.tokens, self.step)
        norm = descend(self.model, self.optimizer, loss + strategy.loss(routed, self.schedule.progress(self.tokens)), rate)
        strategy.after_step(routed)
        torch._foreach_lerp_(self.averaged, self.parameters, 1 - min(self.s.average, (self.step + 1) / (self.step + 10)))
        self.step += 1
        self.tokens += tokens.numel()
        self.enter_phase()
        right = (logits.detach().argmax(-1) == targets)[counts].float().mean().item()
        with torch.no_grad():
            balance = torch.stack([load_balancing_loss(layer) for layer in routed]).mean().item()
        return dict(loss=loss.item(), balance=balance, norm=norm, rate=rate, right=right, loads=[layer.f.tolist() for layer in routed])

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
        stop, end = StopRequest(), self.schedule.end
        while self.tokens < end and not stop:
            start = time.perf_counter()
            result = self.train_step()
            self.seconds += time.perf_counter() - start
            scores = {}
            if self.step % self.s.evaluate_every == 0 or self.tokens >= end:
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
            if time.monotonic() - self.saved > self.s.save_seconds or self.tokens >= end or stop:
                self.save()

    def export(self, target: Path):
        self.exchange()
        write_checkpoint(target, self.model, self.config, self.folder)
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
    if arguments.export and not arguments.start and not (arguments.state / "state.pt").exists():
        parser.error(f"{arguments.state} has no training to export; name it with --state")
    use_one_core()
    trainer = Trainer(Settings(**changes), arguments.state, arguments.start)
    trainer.export(arguments.export) if arguments.export else trainer.run()


if __name__ == "__main__":
    main()
