"""Ways to keep all experts of a layer in use: the paper's four strategies and their variants, each a small object.

A trainer asks its strategy three things in every step, and nothing else about load balance:

    strategy.experts_per_token(layers, progress)    k of every layer, before the step
    strategy.loss(routed, progress)                 what is added to the language model's loss
    strategy.after_step(routed)                     once the optimizer has moved the weights

`progress` is the share of training that is done, from 0 to 1. `routed` has one `Routed` for each layer, from a `RoutingLog`.
Symbols are the paper's; docs/load-balance.md explains them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sigma_reference import MoE, Router, Sigma


@dataclass(frozen=True)
class Routed:
    """What the router of one layer did with one global batch.

    logits: [tokens, experts], float32
    scores: [tokens, experts], float32, the gate's sigmoid or softmax of the logits
    chosen: [tokens, k], indices of experts
    """

    router: Router
    logits: Tensor
    scores: Tensor
    chosen: Tensor

    @property
    def expert_count(self) -> int:
        return self.scores.shape[1]

    @property
    def f(self) -> Tensor:
        """Token allocation [experts]: the share of all choices that went to each expert. It has no gradient."""
        return self.chosen.flatten().bincount(minlength=self.expert_count) / self.chosen.numel()

    @property
    def p(self) -> Tensor:
        """Gating probability [experts]: the mean over tokens of the scores, made to sum to 1."""
        return (self.scores / self.scores.sum(-1, keepdim=True)).mean(0)


class RoutingLog:
    """Collects what every router of a model does while gradients are on, until it is taken."""

    def __init__(self, model: Sigma):
        self.routed: list[Routed] = []
        for layer in model.layers:
            if isinstance(layer.mlp, MoE):
                layer.mlp.gate.observe = self.observe

    def observe(self, router: Router, logits: Tensor, scores: Tensor, chosen: Tensor):
        if torch.is_grad_enabled():
            self.routed.append(Routed(router, logits, scores, chosen))

    def take(self) -> list[Routed]:
        routed, self.routed = self.routed, []
        return routed


def load_balancing_loss(layer: Routed) -> Tensor:
    """Equation 1 of one layer: 1 when f or p is uniform."""
    return layer.expert_count * (layer.f * layer.p).sum()


def top1_load_balancing_loss(layer: Routed, tau: Tensor | float) -> Tensor:
    """Equations 2 to 4 of one layer: 1 when all tokens are decided, and for all experts equally often."""
    soft = torch.softmax(layer.logits / tau, -1)
    return layer.expert_count * soft.mean(0).pow(2).sum() / soft.max(-1).values.mean()


def spread(values: Tensor) -> Tensor:
    """How far a token's experts are apart: the standard deviation over experts of values [tokens, experts], mean over tokens."""
    return values.detach().std(-1).mean()


class Strategy:
    """No load balance: one expert a token, no loss. The others say what they do differently."""

    def experts_per_token(self, layers: int, progress: float) -> tuple[int, ...]:
        return (1,) * layers

    def loss(self, routed: list[Routed], progress: float) -> Tensor:
        return torch.zeros(())

    def after_step(self, routed: list[Routed]):
        pass


@dataclass(frozen=True)
class LoadBalancingLoss(Strategy):
    """The conventional loss over the global batch (section 2.2.1), summed over layers."""

    coefficient: float = 1e-3

    def loss(self, routed: list[Routed], progress: float) -> Tensor:
        return self.coefficient * torch.stack([load_balancing_loss(layer) for layer in routed]).sum()


@dataclass(frozen=True)
class Top1LoadBalancingLoss(Strategy):
    """The paper's own loss (section 3.6), summed over layers.

    With `relative`, tau is in units of each layer's `spread` of logits: the loss then looks at how a token's logits compare,
    whatever their size, which depends on the weights' initial values and on the hidden size.
    """

    coefficient: float = 1e-3
    tau: float = 1.0
    relative: bool = False

    def loss(self, routed: list[Routed], progress: float) -> Tensor:
        return self.coefficient * torch.stack([top1_load_balancing_loss(layer, self.tau_of(layer)) for layer in routed]).sum()

    def tau_of(self, layer: Routed) -> Tensor | float:
        return self.tau * spread(layer.logits) if self.relative else self.tau


@dataclass(frozen=True)
class LossFreeBalancing(LoadBalancingLoss):
    """A bias on each expert's score that counts in the choice only (section 3.5.2), beside the conventional loss.

    After a step the bias of every expert with less than the mean load rises by `speed`, and that of the others falls. With
    `relative`, the speed is in units of each layer's `spread` of scores: what a step of the bias can do depends on that.
    """

    speed: float = 1e-3
    relative: bool = False

    @torch.no_grad()
    def after_step(self, routed: list[Routed]):
        for layer in routed:
            speed = self.speed * spread(layer.scores) if self.relative else self.speed
            layer.router.e_score_correction_bias += speed * (1 / layer.expert_count - layer.f).sign()


@dataclass(frozen=True)
class ProgressiveSparsification(Strategy):
    """More experts a token in the lower layers for the first part of training, then one (section 2.2.2).

    first: experts per token of the lowest layers in the first part; the other layers have one
    until: the share of training at which the first part ends; 1 keeps it to the end
    """

    first: tuple[int, ...]
    until: float
    before: Strategy = LoadBalancingLoss()
    after: Strategy = LoadBalancingLoss()

    def experts_per_token(self, layers: int, progress: float) -> tuple[int, ...]:
        if progress >= self.until:
            return (1,) * layers
        return (*self.first, *(1,) * layers)[:layers]

    def loss(self, routed: list[Routed], progress: float) -> Tensor:
        return self.part(progress).loss(routed, progress)

    def part(self, progress: float) -> Strategy:
        return self.before if progress < self.until else self.after
