"""What `sigma-eval routing` measures, computed from the reference: plainly, token by token, with nothing clever.

Quantities and symbols are the paper's (sections 2.2 and 3.6); docs/load-balance.md explains them.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from sigma_reference import MoE, Sigma


class Routing:
    """Logits, scores and choices of every layer with a router, for all tokens that the model has read."""

    def __init__(self, model: Sigma):
        self.model = model
        self.layers = [i for i, layer in enumerate(model.layers) if isinstance(layer.mlp, MoE)]
        self.parts: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = {i: [] for i in self.layers}
        for i in self.layers:
            model.layers[i].mlp.gate.register_forward_hook(self.hook(i))

    def hook(self, index: int):
        def see(router, inputs, output):
            scores, chosen, _, _ = output
            logits = F.linear(inputs[0].float(), router.weight.float())
            self.parts[index].append((logits, scores, chosen))

        return see

    def read(self, tokens: list[int], context: int, bos: int | None = None):
        """Windows of `context` tokens without overlap, bos included."""
        start = [] if bos is None else [bos]
        step = context - len(start)
        for first in range(0, len(tokens), step):
            self.model.run([*start, *tokens[first : first + step]])

    def of(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(torch.cat(parts) for parts in zip(*self.parts[layer]))

    def bias(self, layer: int) -> Tensor:
        return self.model.layers[layer].mlp.gate.e_score_correction_bias

    def accesses(self) -> list[int]:
        """Every use of an expert, token by token and layer by layer; experts of all layers are numbered through."""
        experts = self.model.c.expert_count
        columns = [self.of(layer)[2] + place * experts for place, layer in enumerate(self.layers)]
        return torch.cat(columns, 1).flatten().tolist()


def margins(routing: Routing, layer: int) -> Tensor:
    """[tokens]: how far the best expert is ahead of the second, by what the choice goes by."""
    best = (routing.of(layer)[1].double() + routing.bias(layer).double()).topk(2).values
    return best[:, 0] - best[:, 1]


def layer_statistics(routing: Routing, layer: int, tau: float) -> dict:
    logits, scores, chosen = routing.of(layer)
    count = scores.shape[1]
    used = chosen.flatten().bincount(minlength=count).double()
    f = used / used.sum()
    p = (scores.double() / scores.double().sum(-1, keepdim=True)).mean(0)
    soft = torch.softmax(logits.double() / tau, -1)  # equation 3
    top1 = soft.max(-1).values.mean()  # equation 4
    ahead = margins(routing, layer)
    return {
        "layer": layer,
        "experts_per_token": chosen.shape[1],
        "lbl": (count * (f * p).sum()).item(),  # equation 1
        "top1_lbl": (count * soft.mean(0).pow(2).sum() / top1).item(),  # equation 2
        "deviation_max": (used.max() / used.mean() - 1).item(),
        "deviation_min": (used.min() / used.mean() - 1).item(),
        "entropy": -torch.special.xlogy(f, f).sum().item(),
        "unused": (used == 0).nonzero()[:, 0].tolist(),
        "f": f.tolist(),
        "p": p.tolist(),
        "margin": {"mean": ahead.mean().item(), "min": ahead.min().item(), "p50": ahead.quantile(0.5, interpolation="lower").item()},
    }


def lru_hits(accesses: list[int], slots: int) -> int:
    cache, hits = OrderedDict(), 0
    for item in accesses:
        if item in cache:
            hits += 1
            cache.move_to_end(item)
            continue
        if len(cache) == slots:
            cache.popitem(last=False)
        cache[item] = None
    return hits


def belady_hits(accesses: list[int], slots: int) -> int:
    """The item whose next use is furthest goes."""
    following, upcoming = [0] * len(accesses), {}
    for place in reversed(range(len(accesses))):
        following[place] = upcoming.get(accesses[place], len(accesses))
        upcoming[accesses[place]] = place
    cache, hits = {}, 0
    for item, after in zip(accesses, following):
        if item in cache:
            hits += 1
        elif len(cache) == slots:
            del cache[max(cache, key=cache.get)]
        cache[item] = after
    return hits


def statistics(routing: Routing, tau: float) -> dict:
    accesses = routing.accesses()
    sizes = range(1, len(routing.layers) * routing.model.c.expert_count + 1)
    return {
        "tokens": len(accesses) // sum(routing.of(layer)[2].shape[1] for layer in routing.layers),
        "tau": tau,
        "layers": [layer_statistics(routing, layer, tau) for layer in routing.layers],
        "cache": {
            "accesses": len(accesses),
            "used_experts": len(set(accesses)),
            "lru": [lru_hits(accesses, size) / len(accesses) for size in sizes],
            "belady": [belady_hits(accesses, size) / len(accesses) for size in sizes],
        },
    }
