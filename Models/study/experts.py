"""The experts of a layer as few large operations: the same sums as the reference, for many small experts on one core."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sigma_reference import MoE


class GroupedLinear(torch.autograd.Function):
    """Each group of rows through a matrix of its own, without padding.

    x [rows, in], sorted by group; weight [groups, out, in]; counts: rows of each group -> [rows, out]
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, counts: list[int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.counts = counts
        y = x.new_empty(x.shape[0], weight.shape[1])
        for mine, matrix, out in zip(x.split(counts), weight.unbind(), y.split(counts)):
            if len(mine):
                torch.mm(mine, matrix.t(), out=out)
        return y

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight = torch.empty_like(x), torch.empty_like(weight)
        parts = zip(x.split(ctx.counts), weight.unbind(), gradient.split(ctx.counts), of_x.split(ctx.counts), of_weight.unbind())
        for mine, matrix, upper, x_out, weight_out in parts:
            if len(mine):
                torch.mm(upper, matrix, out=x_out)
                torch.mm(upper.t(), mine, out=weight_out)
            else:
                weight_out.zero_()
        return of_x, of_weight, None


def experts(self: MoE, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """As `MoE.experts`."""
    k = chosen.shape[1]
    order = chosen.flatten().sort(dim=0, stable=True).indices
    counts = chosen.flatten().bincount(minlength=self.down.shape[0]).tolist()
    rows = order // k
    gate, up = GroupedLinear.apply(x.index_select(0, rows), self.gate_up, counts).chunk(2, -1)
    y = GroupedLinear.apply(F.silu(gate) * up, self.down, counts) * weights.flatten().index_select(0, order)[:, None]
    return torch.zeros_like(x).index_add(0, rows, y)


def use():
    MoE.experts = experts
