"""What the study trains: variants of the four strategies, and the order in which their runs are done."""

import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[1:1] = [str(HERE.parent / name) for name in ("reference", "training")]

from strategies import LoadBalancingLoss, LossFreeBalancing, ProgressiveSparsification, Strategy, Top1LoadBalancingLoss

ROUTER_SPREAD = 0.07  # at hidden size 128 it gives logits of the size that the paper's 0.02 gives at 1,536
DENSER = (8, 6, 4, 2)  # experts per token of the four layers in progressive sparsification's first part
SWITCH = 0.8  # the share of training at which that part ends


@dataclass(frozen=True)
class Scale:
    """How large runs are.

    steps: of a variant of length 1
    windows: sequences in a batch
    log_every: steps from one row of the curves to the next
    held_out: windows of held-out text at most
    """

    steps: int
    windows: int
    log_every: int
    held_out: int | None = None
    save_seconds: float = 60


SCALES = {
    "full": Scale(steps=1000, windows=32, log_every=20),
    "short": Scale(steps=300, windows=16, log_every=5),  # a seventh of the tokens: a first look at every strategy
    "quick": Scale(steps=40, windows=8, log_every=5, held_out=32, save_seconds=5),  # for a test of the machinery
}


@dataclass(frozen=True)
class Variant:
    """A strategy, and what else differs between runs.

    router_spread: standard deviation of the routers' initial weights
    trunk: name of the variant whose steps before `SWITCH` are this one's too
    length: steps, relative to the others
    """

    label: str
    strategy: Strategy
    router_spread: float = ROUTER_SPREAD
    trunk: str | None = None
    length: int = 1


VARIANTS = {
    "A-lbl": Variant("LBL 1e-3", LoadBalancingLoss(1e-3)),
    "B-lbl-1e-2": Variant("LBL 1e-2", LoadBalancingLoss(1e-2)),
    "C-top1": Variant("Top-1 LBL, tau 0.3", Top1LoadBalancingLoss(1e-3, tau=0.3)),
    "C-top1-tau-1": Variant("Top-1 LBL, tau 1, init 0.02", Top1LoadBalancingLoss(1e-3, tau=1.0), router_spread=0.02),
    "D-keep": Variant("progressive, not switched", ProgressiveSparsification(DENSER, until=1.0)),
    "D-switch": Variant("progressive, switched at 80 %", ProgressiveSparsification(DENSER, until=SWITCH), trunk="D-keep"),
    "D-switch-1e-2": Variant(
        "progressive, switched, LBL 1e-2", ProgressiveSparsification(DENSER, until=SWITCH, after=LoadBalancingLoss(1e-2)), trunk="D-keep"
    ),
    "E-bias-1e-3": Variant("LBL 1e-3 and bias, speed 1e-3", LossFreeBalancing(1e-3, speed=1e-3)),
    "E-bias-1e-2": Variant("LBL 1e-3 and bias, speed 1e-2", LossFreeBalancing(1e-3, speed=1e-2)),
    "E-bias-1e-1": Variant("LBL 1e-3 and bias, speed 0.1", LossFreeBalancing(1e-3, speed=1e-1)),
    # Our idea: tau in units of the logits' spread makes Top-1 LBL work at any initial size of the logits.
    "F-relative": Variant("Top-1 LBL, relative tau 0.4", Top1LoadBalancingLoss(1e-3, tau=0.4, relative=True)),
    "F-relative-init-0.02": Variant(
        "Top-1 LBL, relative tau 0.4, init 0.02", Top1LoadBalancingLoss(1e-3, tau=0.4, relative=True), router_spread=0.02
    ),
    "F-fixed-init-0.02": Variant("Top-1 LBL, tau 0.3, init 0.02", Top1LoadBalancingLoss(1e-3, tau=0.3), router_spread=0.02),
    "A-lbl-long": Variant("LBL 1e-3, twice the steps", LoadBalancingLoss(1e-3), length=2),
    "E-bias-1e-3-long": Variant("LBL 1e-3 and bias, speed 1e-3, twice the steps", LossFreeBalancing(1e-3, speed=1e-3), length=2),
}


@dataclass(frozen=True)
class Run:
    name: str  # of the variant
    seed: int  # of the initial weights and of the order of the text

    @property
    def variant(self) -> Variant:
        return VARIANTS[self.name]

    def __str__(self) -> str:
        return f"{self.name}/seed-{self.seed}"


D = ("D-keep", "D-switch", "D-switch-1e-2")  # in one group: they share a trunk

# Groups of runs, which one process trains one after the other. Early groups matter most: every strategy once, then again.
GROUPS: list[list[Run]] = [
    [Run(name, seed) for name in names]
    for names, seed in (
        (("A-lbl",), 1), (("C-top1",), 1), (("E-bias-1e-1",), 1), (D, 1),
        (("A-lbl",), 2), (("C-top1",), 2), (("E-bias-1e-1",), 2), (D, 2),
        (("A-lbl",), 3), (("C-top1",), 3), (("E-bias-1e-1",), 3), (D, 3),
        (("B-lbl-1e-2",), 1), (("B-lbl-1e-2",), 2), (("B-lbl-1e-2",), 3),
        (("E-bias-1e-3",), 1), (("E-bias-1e-3",), 2), (("E-bias-1e-3",), 3),
        (("C-top1-tau-1",), 1), (("E-bias-1e-2",), 1),
        (("F-relative",), 4), (("F-relative-init-0.02",), 4), (("F-fixed-init-0.02",), 4),
        (("F-relative",), 5), (("F-relative-init-0.02",), 5), (("F-fixed-init-0.02",), 5),
        (("F-relative",), 6), (("F-relative-init-0.02",), 6), (("F-fixed-init-0.02",), 6),
        (("A-lbl-long",), 1), (("E-bias-1e-3-long",), 1),
    )
]

QUICK_GROUPS: list[list[Run]] = [
    [Run(name, 1) for name in names] for names in (("A-lbl",), ("C-top1",), D, ("E-bias-1e-1",), ("F-relative",))
]
