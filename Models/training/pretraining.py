"""The paper's pre-training (section 3.2), as far as every trainer here does it in the same way."""

import math

import torch
from torch import Tensor

from sigma_config import Config
from sigma_reference import Sigma

INITIAL_SPREAD = 0.02
CLIPPING = 1.0


def new_model(config: dict, seed: int, router_spread: float = INITIAL_SPREAD) -> Sigma:
    """A model with normal weights, and norms of 1. `router_spread` is the standard deviation of the routers' weights."""
    torch.manual_seed(seed)
    model = Sigma(Config.parse(config))
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=router_spread if name.endswith("mlp.gate.weight") else INITIAL_SPREAD)
    return model


def optimizer_of(model: Sigma) -> torch.optim.Optimizer:
    """AdamW; weight decay for matrices only. The learning rate comes with every step."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    norms = [p for p in model.parameters() if p.dim() == 1]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}],
        lr=0.0, betas=(0.9, 0.95), eps=1e-9, fused=True,
    )


def descend(model: Sigma, optimizer: torch.optim.Optimizer, loss: Tensor, rate: float) -> float:
    """One step along the clipped gradient of `loss`. Returns the gradient's norm before clipping."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIPPING)
    optimizer.step()
    return norm.item()


def stable_then_decay(progress: float) -> float:
    """The learning rate over its peak: stable, a cosine to 0.6, then linear to 0.1. Warm-up comes on top."""
    if progress < 0.6:
        return 1.0
    if progress < 0.9:
        return 0.6 + 0.4 * 0.5 * (1 + math.cos(math.pi * (progress - 0.6) / 0.3))
    return 0.6 + (0.1 - 0.6) * (progress - 0.9) / 0.1
