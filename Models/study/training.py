"""Trains one run: the paper's recipe in small, with a strategy for load balance, and writes what the routers did."""

import csv
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from runs import DENSER, SWITCH, Run, Scale  # first: it finds the other folders

import experts
from bpe import SPECIALS
from data import CONTEXT, VOCABULARY, Corpus
from export import hf_config, set_experts_per_token, write_checkpoint
from measure import columns_of, read_rows, write_frozen
from pretraining import descend, new_model, optimizer_of, stable_then_decay
from process import save_state
from sigma_reference import Layout
from strategies import RoutingLog

LAYERS = len(DENSER)
PEAK = 2e-3  # learning rate
WARMUP = 0.1  # share of the steps
TRUNK_STATE = "switch.pt"  # the state at the switch, from which other variants branch off


def config() -> dict:
    return hf_config(
        (1,) * LAYERS, vocabulary=VOCABULARY, hidden=128, heads=4, kv_heads=2, head_dim=32, experts=96, expert_size=32, context=CONTEXT,
        bos=VOCABULARY - len(SPECIALS), dtype="float32",
    )


class Training:
    """One run, from its first step or from where its state is. `folder` keeps state and curves until the run is finished."""

    def __init__(self, run: Run, scale: Scale, corpus: Corpus, runs_folder: Path):
        experts.use()
        self.run, self.scale, self.corpus = run, scale, corpus
        self.folder, self.runs_folder = runs_folder / str(run), runs_folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.strategy, self.steps = run.variant.strategy, scale.steps * run.variant.length
        self.step, self.seconds, self.recent = 0, 0.0, []  # seconds of the processor; losses since the last row of the curves
        self.model = new_model(config(), run.seed, run.variant.router_spread)
        self.optimizer = optimizer_of(self.model)
        self.routing = RoutingLog(self.model)
        self.layout = Layout.of([CONTEXT] * scale.windows)
        if self.state_file.exists():
            self.load(self.state_file)
        if self.step or not run.variant.trunk:
            self.keep_curves(self.curves_file)
        else:
            self.take_trunk(Run(run.variant.trunk, run.seed))
        self.saved = time.monotonic()

    @property
    def state_file(self) -> Path:
        return self.folder / "state.pt"

    @property
    def curves_file(self) -> Path:
        return self.folder / "curves.csv"

    @property
    def switch_step(self) -> int:
        return round(SWITCH * self.steps)

    @property
    def finished(self) -> bool:
        return self.step >= self.steps

    def take_trunk(self, trunk: Run):
        """Goes on from the trunk's state at the switch; where that was not kept, the trunk is trained up to there again."""
        folder = self.runs_folder / str(trunk)
        if not (folder / TRUNK_STATE).exists():
            training = Training(trunk, self.scale, self.corpus, self.runs_folder)
            if training.step > self.switch_step:
                training.state_file.unlink()
                training = Training(trunk, self.scale, self.corpus, self.runs_folder)
            while training.step < self.switch_step:
                training.train_step()
        self.load(folder / TRUNK_STATE)
        self.keep_curves(folder / "curves.csv")

    def load(self, file: Path):
        state = torch.load(file)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.recent = state["step"], state["seconds"], state["recent"]

    def save(self, file: Path):
        save_state(dict(model=self.model.state_dict(), optimizer=self.optimizer.state_dict(), step=self.step, seconds=self.seconds,
                        recent=self.recent), file)
        self.saved = time.monotonic()

    def keep_curves(self, file: Path):
        """The rows up to this step; a process that was killed may have written more."""
        if file.exists():
            rows = [row for row in read_rows(file) if int(row["step"]) <= self.step]
            self.curves_file.unlink(missing_ok=True)
            for row in rows:
                self.log(row)

    # Steps.

    def learning_rate(self) -> float:
        return PEAK * stable_then_decay(self.step / self.steps) * min(1.0, (self.step + 1) / (WARMUP * self.steps))

    def train_step(self) -> dict | None:
        """One step. Returns the row of the curves, if this step has one."""
        start, progress = time.process_time(), self.step / self.steps
        set_experts_per_token(self.model, self.strategy.experts_per_token(LAYERS, progress))
        batch = torch.from_numpy(self.corpus.batch(self.run.seed, self.step, self.scale.windows))
        x, _ = self.model.hidden(batch[:, :-1].flatten(), self.layout)
        loss = F.cross_entropy(self.model.lm_head(x), batch[:, 1:].flatten())
        routed, rate = self.routing.take(), self.learning_rate()
        norm = descend(self.model, self.optimizer, loss + self.strategy.loss(routed, progress), rate)
        self.strategy.after_step(routed)
        self.step += 1
        self.recent.append(loss.item())
        self.seconds += time.process_time() - start
        row = None
        if self.step % self.scale.log_every == 0:
            mean, self.recent = sum(self.recent) / len(self.recent), []
            row = dict(step=self.step, cpu_seconds=round(self.seconds, 1), loss=f"{loss.item():.5f}", mean_loss=f"{mean:.5f}",
                       rate=f"{rate:.3g}", norm=f"{norm:.4g}", **columns_of(routed))
            self.log(row)
        if self.step == self.switch_step and self.run.variant.trunk is None:
            self.save(self.folder / TRUNK_STATE)
        if time.monotonic() - self.saved > self.scale.save_seconds:
            self.save(self.state_file)
        return row

    def log(self, row: dict):
        fresh = not self.curves_file.exists()
        with self.curves_file.open("a", newline="") as out:
            writer = csv.DictWriter(out, row, lineterminator="\n")
            if fresh:
                writer.writeheader()
            writer.writerow(row)

    def finish(self, results: Path):
        """The checkpoint stays with the state; what is measured on the frozen model goes to the results, last of all."""
        set_experts_per_token(self.model, self.strategy.experts_per_token(LAYERS, (self.steps - 1) / self.steps))
        chosen = tuple(layer.mlp.gate.k for layer in self.model.layers)
        listed = {} if set(chosen) == {1} else {"num_experts_per_tok_layer_wise": list(chosen)}
        write_checkpoint(self.folder / "checkpoint", self.model, {**config(), **listed}, self.corpus.folder)
        target = results / str(self.run)
        target.mkdir(parents=True, exist_ok=True)
        (target / "curves.csv").write_bytes(self.curves_file.read_bytes())
        write_frozen(target, self.run, self.model, self.corpus.held_out()[: self.scale.held_out])
        self.state_file.unlink(missing_ok=True)
