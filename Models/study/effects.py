"""The comparisons that docs/study.md makes, seed by seed.

An effect is claimed where three seeds or more have it, none lacks it, and a two-sided t test over the seeds rejects at 5 % that it is zero: without
an effect one set of three seeds in four would agree in sign.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Protocol

LAYERS = 4
SEEDS_OF_A_CLAIM = 3
# Student's t for a two-sided test at 5 %, by the number of seeds.
CRITICAL_T = {3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}


class Frozen(Protocol):
    """The frozen models' measurements, as figures.py reads them."""

    def seeds_of_both(self, name: str, other: str) -> list[int]: ...

    def frozen(self, name: str, seed: int, layer: int) -> dict[str, str]: ...

    def experts(self, name: str, seed: int, layer: int) -> list[dict[str, str]]: ...


Measure = Callable[[Frozen, str, int], float]  # of a variant's run with a seed


def experts_in_use(layer: int) -> Measure:
    """exp(entropy) of f: so many experts used equally often would be as varied. 96 is even."""
    return lambda results, name, seed: math.exp(float(results.frozen(name, seed, layer)["entropy"]))


def experts_in_use_everywhere(results: Frozen, name: str, seed: int) -> float:
    return mean(experts_in_use(layer)(results, name, seed) for layer in range(LAYERS))


def experts_leant_to(layer: int) -> Measure:
    """exp(entropy) of p."""

    def measure(results: Frozen, name: str, seed: int) -> float:
        shares = [float(row["p"]) for row in results.experts(name, seed, layer)]
        return math.exp(-sum(p * math.log(p) for p in shares if p > 0))

    return measure


def column(layer: int, of: str) -> Measure:
    return lambda results, name, seed: float(results.frozen(name, seed, layer)[of])


loss = column(0, "loss")  # the same in every layer's row


@dataclass(frozen=True)
class Effect:
    """How far a measurement of one run is above another's: of another variant with the same seed, or of the same run (`lower`)."""

    what: str
    name: str
    measure: Measure
    form: str
    than: str | None = None
    lower: Measure | None = None
    relative: bool = False  # in percent of the other

    def values(self, results: Frozen) -> dict[int, float]:
        return {seed: self.value(results, seed) for seed in results.seeds_of_both(self.name, self.than or self.name)}

    def value(self, results: Frozen, seed: int) -> float:
        ours, other = self.measure(results, self.name, seed), (self.lower or self.measure)(results, self.than or self.name, seed)
        return 100 * (ours / other - 1) if self.relative else ours - other

    @property
    def pair(self) -> str:
        return f"`{self.name}` less `{self.than}`" if self.than else f"`{self.name}`"


USE = experts_in_use(0)
EFFECTS = (
    Effect("experts in use, layer 0 less layer 3", "A-lbl", USE, "+.1f", lower=experts_in_use(3)),
    Effect("experts leant to less experts in use, layer 0", "A-lbl", experts_leant_to(0), "+.1f", lower=USE),
    Effect("experts leant to less experts in use, layer 3", "A-lbl", experts_leant_to(3), "+.1f", lower=experts_in_use(3)),
    Effect("sd of a token's scores, layer 0 less layer 3", "A-lbl", column(0, "score_sd"), "+.3f", lower=column(3, "score_sd")),
    Effect("experts in use, layer 0", "B-lbl-1e-2", USE, "+.1f", than="A-lbl"),
    Effect("held-out loss", "B-lbl-1e-2", loss, "+.3f", than="A-lbl"),
    Effect("experts in use, layer 0", "C-top1", USE, "+.1f", than="A-lbl"),
    Effect("experts in use, all layers", "C-top1", experts_in_use_everywhere, "+.1f", than="A-lbl"),
    Effect("held-out loss", "C-top1", loss, "+.3f", than="A-lbl"),
    Effect("held-out loss", "C-top1", loss, "+.3f", than="B-lbl-1e-2"),
    Effect("sd of a token's scores, layer 0", "C-top1", column(0, "score_sd"), "+.3f", than="A-lbl"),
    Effect("experts in use, layer 0", "D-keep", USE, "+.1f", than="A-lbl"),
    Effect("experts in use, layer 0", "D-switch", USE, "+.1f", than="A-lbl"),
    Effect("experts in use, layer 0", "D-switch", USE, "+.1f", than="D-keep"),
    Effect("experts in use, layer 0", "D-switch-1e-2", USE, "+.1f", than="D-switch"),
    Effect("held-out loss, %", "D-switch", loss, "+.2f", than="D-keep", relative=True),
    Effect("held-out loss, %", "D-switch-1e-2", loss, "+.2f", than="D-keep", relative=True),
    Effect("held-out loss", "D-switch", loss, "+.3f", than="A-lbl"),
    Effect("experts in use, layer 0", "E-bias-1e-3", USE, "+.1f", than="A-lbl"),
    Effect("experts in use, all layers", "E-bias-1e-3", experts_in_use_everywhere, "+.1f", than="A-lbl"),
    Effect("held-out loss", "E-bias-1e-3", loss, "+.3f", than="A-lbl"),
    Effect("held-out loss", "E-bias-1e-3", loss, "+.3f", than="C-top1"),
    Effect("experts in use, layer 0", "E-bias-1e-1", USE, "+.1f", than="A-lbl"),
    Effect("experts in use, all layers", "E-bias-1e-1", experts_in_use_everywhere, "+.1f", than="A-lbl"),
    Effect("held-out loss", "E-bias-1e-1", loss, "+.3f", than="A-lbl"),
    Effect("experts in use, layer 0", "F-relative-init-0.02", USE, "+.1f", than="F-relative"),
    Effect("experts in use, layer 0", "F-relative-init-0.02", USE, "+.1f", than="F-fixed-init-0.02"),
    Effect("held-out loss", "F-relative-init-0.02", loss, "+.3f", than="F-fixed-init-0.02"),
)


def verdict(values: list[float]) -> str:
    if len(values) < SEEDS_OF_A_CLAIM:
        return "nothing: too few seeds"
    if min(values) <= 0 <= max(values):
        return "nothing: seeds differ"
    if abs(mean(values)) * math.sqrt(len(values)) <= CRITICAL_T[len(values)] * stdev(values):
        return "nothing: too much spread"
    return "higher" if mean(values) > 0 else "lower"


def effects_table(results: Frozen) -> str:
    """A row for each comparison that has at least one seed."""
    lines = ["| what | runs | each seed | says |", "|---|---|---|---|"]
    for effect in EFFECTS:
        values = effect.values(results)
        if values:
            each = ", ".join(f"{value:{effect.form}} ({seed})" for seed, value in values.items())
            lines.append(f"| {effect.what} | {effect.pair} | {each} | {verdict(list(values.values()))} |")
    return "\n".join(lines)
