"""Tests the study's machinery on a tiny corpus: python Models/study/test_study.py (a minute; part of `make study-quick`)."""

import math
import tempfile
import unittest
from pathlib import Path

import torch

from runs import ROUTER_SPREAD, VARIANTS, Run, Scale, Variant  # first: it finds the other folders

import data
import experts
from effects import effects_table, verdict
from measure import read_rows
from pretraining import new_model, stable_then_decay
from process import StopRequest, use_one_core
from routing_statistics import Routing, layer_statistics
from run import Study
from sigma_checkpoint import load_model
from sigma_reference import Layout, MoE
from strategies import (
    LoadBalancingLoss, LossFreeBalancing, ProgressiveSparsification, RoutingLog, Top1LoadBalancingLoss, load_balancing_loss,
    top1_load_balancing_loss,
)
from training import LAYERS, Training, config

TINY = Scale(steps=10, windows=2, log_every=1, held_out=3, save_seconds=1e9)
exact_experts = MoE.experts


def routed_of(model, windows: int = 2):
    """What the routers do with random tokens."""
    log = RoutingLog(model)
    tokens = torch.randint(0, data.VOCABULARY, (windows * data.CONTEXT,), generator=torch.Generator().manual_seed(0))
    model.hidden(tokens, Layout.of([data.CONTEXT] * windows))
    return tokens, log.take()


class StrategyTests(unittest.TestCase):
    def setUp(self):
        self.model = new_model(config(), 1, ROUTER_SPREAD)

    def test_losses_are_the_reference_statistics(self):
        routing = Routing(self.model)
        _, routed = routed_of(self.model)
        for i, layer in enumerate(routed):
            expected = layer_statistics(routing, i, tau=0.5)
            self.assertAlmostEqual(load_balancing_loss(layer).item(), expected["lbl"], places=5)
            self.assertAlmostEqual(top1_load_balancing_loss(layer, 0.5).item(), expected["top1_lbl"], places=4)

    def test_losses_move_the_routers(self):
        for strategy in (LoadBalancingLoss(), Top1LoadBalancingLoss(tau=0.3), Top1LoadBalancingLoss(tau=0.4, relative=True)):
            self.model.zero_grad()
            strategy.loss(routed_of(self.model)[1], 0.0).backward()
            for layer in self.model.layers:
                self.assertGreater(layer.mlp.gate.weight.grad.abs().max().item(), 0)

    def test_relative_tau_does_not_see_the_size_of_logits(self):
        layer = routed_of(self.model)[1][0]
        larger = layer.__class__(layer.router, 10 * layer.logits, layer.scores, layer.chosen)
        strategy = Top1LoadBalancingLoss(tau=0.4, relative=True)
        self.assertAlmostEqual(strategy.loss([layer], 0).item(), strategy.loss([larger], 0).item(), places=6)

    def test_bias_rises_where_the_load_is_below_its_mean(self):
        _, routed = routed_of(self.model)
        LossFreeBalancing(speed=0.5).after_step(routed)
        for layer in routed:
            expected = torch.where(layer.f < 1 / layer.expert_count, 0.5, -0.5)
            torch.testing.assert_close(layer.router.e_score_correction_bias, expected)

    def test_progressive_sparsification_switches(self):
        strategy = ProgressiveSparsification((8, 6), until=0.8, after=LoadBalancingLoss(1e-2))
        self.assertEqual(strategy.experts_per_token(3, 0.79), (8, 6, 1))
        self.assertEqual(strategy.experts_per_token(3, 0.8), (1, 1, 1))
        routed = routed_of(self.model)[1]
        self.assertAlmostEqual(strategy.loss(routed, 0.8).item() / strategy.loss(routed, 0.1).item(), 10, places=3)

    def test_schedule_has_the_papers_corners(self):
        self.assertEqual([round(stable_then_decay(x), 6) for x in (0, 0.59, 0.9, 1)], [1, 1, 0.6, 0.1])


class EffectTests(unittest.TestCase):
    def test_an_effect_is_what_three_seeds_have(self):
        self.assertEqual(verdict([1, 2, 3]), "nothing: too much spread")
        self.assertEqual(verdict([2, 2.5, 3]), "higher")
        self.assertEqual(verdict([-1.5, -2, -3, -4]), "lower")
        self.assertEqual(verdict([0.1, 2, -3]), "nothing: seeds differ")
        self.assertEqual(verdict([1, 2]), "nothing: too few seeds")

    def test_only_seeds_of_both_runs_are_compared(self):
        results = Measured({"C-top1": {1: (3.9, 90), 2: (4.0, 80), 4: (4.0, 80)}, "A-lbl": {1: (4.0, 40), 2: (4.5, 50), 3: (4.0, 60)}})
        table = effects_table(results)
        self.assertIn("| experts in use, layer 0 | `C-top1` less `A-lbl` | +50.0 (1), +30.0 (2) | nothing: too few seeds |", table)
        self.assertIn("| held-out loss | `C-top1` less `A-lbl` | -0.100 (1), -0.500 (2) | nothing: too few seeds |", table)
        self.assertIn("| experts leant to less experts in use, layer 0 | `A-lbl` | +56.0 (1), +46.0 (2), +36.0 (3) | higher |", table)
        self.assertNotIn("B-lbl", table)


class Measured:
    """For each variant and seed: the loss, and how many experts every layer has in use. All lean to all 96 alike."""

    def __init__(self, runs: dict[str, dict[int, tuple[float, int]]]):
        self.runs = runs

    def seeds_of_both(self, name: str, other: str) -> list[int]:
        return sorted(self.runs.get(name, {}).keys() & self.runs.get(other, {}).keys())

    def frozen(self, name: str, seed: int, layer: int) -> dict[str, str]:
        loss, used = self.runs[name][seed]
        return dict(loss=str(loss), entropy=str(math.log(used)), score_sd="0.1")

    def experts(self, name: str, seed: int, layer: int) -> list[dict[str, str]]:
        return [dict(p=str(1 / 96))] * 96


class ExpertTests(unittest.TestCase):
    def test_grouped_experts_are_the_references(self):
        results = []
        for function in (exact_experts, experts.experts):
            MoE.experts = function
            model = new_model(config(), 1, ROUTER_SPREAD)
            model.layers[0].mlp.gate.k = 3
            tokens, _ = routed_of(model)
            x, _ = model.hidden(tokens, Layout.of([len(tokens)]))
            x.square().sum().backward()
            results.append([x.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
        for ours, reference in zip(*results, strict=True):
            torch.testing.assert_close(ours, reference, rtol=1e-3, atol=1e-4)


class RunTests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.place = tempfile.TemporaryDirectory()
        cls.folder = Path(cls.place.name)
        data.make(cls.folder / "corpus", data.ROOT / "docs")
        cls.corpus = data.Corpus(cls.folder / "corpus")

    @classmethod
    def tearDownClass(cls):
        cls.place.cleanup()

    def train(self, name: str, run: Run, stop_at: int | None = None) -> tuple[Training, list[dict]]:
        """Rows of a run; with `stop_at` it is stopped there and goes on in another object."""
        training = Training(run, TINY, self.corpus, self.folder / name)
        while not training.finished:
            training.train_step()
            if training.step == stop_at:
                training.save(training.state_file)
                training.train_step()  # a step after the last state, which is done again
                training = Training(run, TINY, self.corpus, self.folder / name)
        return training, [{k: v for k, v in row.items() if k != "cpu_seconds"} for row in read_rows(training.curves_file)]

    def test_batches_follow_from_seed_and_step(self):
        first = self.corpus.batch(1, 0, 4)
        self.assertEqual(first.shape, (4, data.CONTEXT + 1))
        self.assertTrue((first == self.corpus.batch(1, 0, 4)).all())
        self.assertFalse((first == self.corpus.batch(2, 0, 4)).all())
        self.assertFalse((first == self.corpus.batch(1, 1, 4)).all())

    def test_an_epoch_has_every_window_once(self):
        windows, count = 4, self.corpus.window_count // 4
        seen = {self.corpus.batch(1, step, windows)[i].tobytes() for step in range(count) for i in range(windows)}
        self.assertGreater(len(seen), 0.99 * count * windows)

    def test_a_stopped_run_goes_on_as_if_it_was_not(self):
        for run in (Run("E-bias-1e-2", 1), Run("D-switch", 1)):
            _, whole = self.train("whole", run)
            _, parts = self.train("parts", run, stop_at=9 if run.variant.trunk else 4)
            self.assertEqual(whole, parts)

    def test_branches_share_their_trunk(self):
        keep, kept = self.train("branches", Run("D-keep", 1))
        _, switched = self.train("branches", Run("D-switch", 1))
        self.assertEqual(kept[: keep.switch_step], switched[: keep.switch_step])
        self.assertNotEqual(kept[-1], switched[-1])
        # Without the trunk's state the trunk is trained again.
        self.assertEqual(switched, self.train("alone", Run("D-switch", 1))[1])

    def test_results_say_what_the_checkpoint_does(self):
        groups, results = [[Run("E-bias-1e-2", 1)]], self.folder / "results"
        study = Study(groups, TINY, self.corpus.folder, self.folder, results)
        self.assertEqual(study.steps_left(groups[0][0]), TINY.steps)
        study.run()
        self.assertEqual(study.steps_left(groups[0][0]), 0)
        model = load_model(self.folder / "runs" / "E-bias-1e-2" / "seed-1" / "checkpoint")
        routing = Routing(model)
        for window in self.corpus.held_out()[: TINY.held_out]:
            model.run(window)
        rows = read_rows(results / "E-bias-1e-2" / "seed-1" / "frozen.csv")
        shares = read_rows(results / "E-bias-1e-2" / "seed-1" / "experts.csv")
        self.assertEqual(len(rows), LAYERS)
        for i, row in enumerate(rows):
            expected = layer_statistics(routing, i, tau=1.0)
            self.assertAlmostEqual(float(row["lbl"]), expected["lbl"], places=4)
            self.assertAlmostEqual(float(row["most"]), expected["deviation_max"], places=4)
            found = [float(share["f"]) for share in shares if int(share["layer"]) == i]
            torch.testing.assert_close(torch.tensor(found), torch.tensor(expected["f"]), rtol=0, atol=1e-6)

    def test_a_stop_holds_for_all_groups(self):
        stop = StopRequest()
        stop.make()
        study = Study([[Run("A-lbl", 1)]], TINY, self.corpus.folder, self.folder / "stopped", self.folder / "stopped-results")
        study.train(study.groups[0], stop)
        self.assertEqual(study.steps_left(Run("A-lbl", 1)), TINY.steps)

    def test_results_of_another_text_are_refused(self):
        results = self.folder / "others"
        results.mkdir()
        (results / "corpus.json").write_text('{"sha256": "another"}')
        with self.assertRaises(SystemExit):
            Study([], TINY, self.corpus.folder, self.folder, results).run()

    def test_another_strategy_needs_one_entry(self):
        VARIANTS["Z"] = Variant("none", LoadBalancingLoss(0.0))
        self.addCleanup(VARIANTS.pop, "Z")
        self.assertEqual(len(self.train("plugged", Run("Z", 1))[1]), TINY.steps)


if __name__ == "__main__":
    use_one_core()
    unittest.main(buffer=True)
