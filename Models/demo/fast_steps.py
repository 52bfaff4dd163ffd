"""Makes training steps fast on a CPU: the same sums as the reference, in an order that suits PyTorch there.

oneDNN compiles a kernel for every new shape of a bfloat16 product, which takes ten times as long as the product: so tokens come
to the experts in multiples of `BLOCK` rows, and few shapes come up. Norms and rotations become fused loops.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

import sigma_reference
from sigma_reference import MoE, RMSNorm

BLOCK = 64
exact_experts = MoE.experts


def padded(indices: Tensor, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """Indices [n] with index 0 repeated up to a multiple of `block`, and which of them count."""
    missing = -len(indices) % block
    return F.pad(indices, (0, missing)), F.pad(torch.ones(len(indices), dtype=torch.bool), (0, missing))


def experts(self: MoE, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """As `MoE.experts`. What fills up an expert's block is token 0 with weight 0."""
    if not torch.is_grad_enabled():
        return exact_experts(self, x, chosen, weights)
    k, dtype = chosen.shape[1], torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    flat = chosen.flatten()
    order = flat.sort(dim=0, stable=True).indices
    counts = flat.bincount(minlength=self.down.shape[0])
    blocks = (counts + BLOCK - 1) // BLOCK * BLOCK
    shift = (blocks.cumsum(0) - blocks) - (counts.cumsum(0) - counts)
    places = torch.arange(len(order)) + shift.repeat_interleave(counts)
    sizes = blocks.tolist()
    rows = torch.zeros(sum(sizes), dtype=torch.long).index_copy(0, places, order // k)
    scale = torch.zeros(len(rows)).index_copy(0, places, weights.flatten().index_select(0, order))
    results = []
    parts = x.to(dtype).index_select(0, rows).split(sizes)
    for mine, gate_up, down in zip(parts, self.gate_up.to(dtype).unbind(), self.down.to(dtype).unbind()):
        if mine.shape[0]:
            gate, up = F.linear(mine, gate_up).chunk(2, -1)
            results.append(F.linear(F.silu(gate) * up, down))
    y = torch.cat(results) * scale[:, None]
    return torch.zeros_like(x).index_add(0, rows, y.to(x.dtype))


def use(compiled: bool):
    MoE.experts = experts
    if compiled:
        torch._dynamo.config.recompile_limit = 64
        RMSNorm.forward = torch.compile(RMSNorm.forward, dynamic=True)
        sigma_reference.rotate = torch.compile(sigma_reference.rotate, dynamic=True)
