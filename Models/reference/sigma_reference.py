"""Sigma-MoE's forward pass in plain PyTorch: the numbers that every other implementation is held to.

All tokens of all sequences lie in one flat list, so shapes are `[tokens, ...]`; only attention looks at which rows form a
sequence (`Layout`). Everything is computed in float32, whatever the checkpoint's type; only training may let matrices be bfloat16.
"""

from dataclasses import dataclass
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sigma_config import Config, inverse_frequencies

Record = Callable[[str, Tensor], None]


@dataclass
class Layout:
    """Which rows of the flat token list form sequences. Sequences share nothing: attention is block-diagonal.

    groups:    sequences of similar length together, each [sequences, longest]: the row of every token; padding at a
               sequence's end repeats row 0
    slots:     [tokens], each token's place in all groups, flattened one after the other
    positions: [tokens], from 0 in each sequence
    """

    groups: list[Tensor]
    slots: Tensor
    positions: Tensor

    @staticmethod
    def of(lengths: list[int], start: int = 0) -> "Layout":
        sizes = torch.tensor(lengths)
        offsets = sizes.cumsum(0) - sizes
        members: list[list[int]] = []
        for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
            if not members or lengths[i] < 0.8 * lengths[members[-1][0]]:
                members.append([])
            members[-1].append(i)
        groups, base = [], 0
        slots, positions = torch.empty(sum(lengths), dtype=torch.long), torch.empty(sum(lengths), dtype=torch.long)
        for member in members:
            column = torch.arange(lengths[member[0]])
            inside = column < sizes[member, None]
            rows = torch.where(inside, offsets[member, None] + column, 0)
            slots[rows[inside]] = base + inside.flatten().nonzero()[:, 0]
            positions[rows[inside]] = start + column.expand_as(rows)[inside]
            groups.append(rows)
            base += rows.numel()
        return Layout(groups, slots, positions)


class Cache:
    """Keys and values of equally long sequences, [sequences, kv_heads, past, head_dim] per layer."""

    def __init__(self, layers: int):
        self.keys: list[Tensor | None] = [None] * layers
        self.values: list[Tensor | None] = [None] * layers

    @property
    def length(self) -> int:
        return 0 if self.keys[0] is None else self.keys[0].shape[2]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.keys[layer] is not None:
            k, v = torch.cat([self.keys[layer], k], 2), torch.cat([self.values[layer], v], 2)
        self.keys[layer], self.values[layer] = k, v
        return k, v


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE, half-split: pairs are (i, i + head_dim / 2). x [tokens, heads, head_dim], cos and sin [tokens, 1, head_dim / 2]."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Attention(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.q_proj = nn.Linear(c.hidden_size, c.head_count * c.head_dim, bias=False)
        self.k_proj = nn.Linear(c.hidden_size, c.kv_head_count * c.head_dim, bias=False)
        self.v_proj = nn.Linear(c.hidden_size, c.kv_head_count * c.head_dim, bias=False)
        self.o_proj = nn.Linear(c.head_count * c.head_dim, c.hidden_size, bias=False)
        self.q_norm = RMSNorm(c.head_dim, c.rms_norm_eps) if c.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(c.head_dim, c.rms_norm_eps) if c.qk_norm else nn.Identity()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, layout: Layout, layer: int, cache: Cache | None, record: Record) -> Tensor:
        c, tokens = self.c, x.shape[0]
        q = self.q_proj(x).view(tokens, c.head_count, c.head_dim)
        k = self.k_proj(x).view(tokens, c.kv_head_count, c.head_dim)
        v = self.v_proj(x).view(tokens, c.kv_head_count, c.head_dim)
        q = rotate(self.q_norm(q), cos, sin)
        k = rotate(self.k_norm(k), cos, sin)
        record("query", q.flatten(1))
        record("key", k.flatten(1))
        record("value", v.flatten(1))

        every = torch.cat([rows.flatten() for rows in layout.groups])

        def padded(t: Tensor) -> list[Tensor]:
            parts = t.index_select(0, every).split([rows.numel() for rows in layout.groups])
            return [part.view(*rows.shape, -1, c.head_dim).transpose(1, 2) for part, rows in zip(parts, layout.groups)]

        parts = [self.attend(*group, layer, cache) for group in zip(padded(q), padded(k), padded(v.float()))]
        y = torch.cat(parts).index_select(0, layout.slots)
        record("attention", y)
        return self.o_proj(y)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: int, cache: Cache | None) -> Tensor:
        """q [sequences, heads, longest, head_dim], k and v with kv_heads -> [sequences * longest, heads * head_dim].

        Padding stands at the end of a sequence, so the causal mask hides it from every real query.
        """
        c, (sequences, _, longest, _) = self.c, q.shape
        mask = None
        if cache is not None:
            k, v = cache.append(layer, k, v)
            past = k.shape[2] - longest
            mask = torch.ones(longest, past + longest, dtype=torch.bool).tril(past)
        group = c.head_count // c.kv_head_count
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        with torch.autocast("cpu", enabled=False):  # slower in bfloat16, and less exact
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=c.head_dim**-0.5)
        return y.transpose(1, 2).reshape(sequences * longest, -1)


class DenseFeedForward(nn.Module):
    """SwiGLU: a dense layer, or all shared experts together."""

    def __init__(self, hidden: int, size: int):
        super().__init__()
        self.gate_proj = nn.Linear(hidden, size, bias=False)
        self.up_proj = nn.Linear(hidden, size, bias=False)
        self.down_proj = nn.Linear(size, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


def highest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` highest scores of each row, from the highest on, and their indices; of equal ones the lowest index comes first, which
    `topk` does not promise. Much faster than a sort where few are wanted."""
    left, values, indices = scores.clone(), [], []
    for _ in range(count):
        value, index = left.max(dim=-1, keepdim=True)
        left.scatter_(-1, index, float("-inf"))
        values.append(value)
        indices.append(index)
    return torch.cat(values, -1), torch.cat(indices, -1)


class Router(nn.Module):
    def __init__(self, c: Config, k: int):
        super().__init__()
        self.c, self.k = c, k
        self.weight = nn.Parameter(torch.empty(c.expert_count, c.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.zeros(c.expert_count))
        # Training's load balance sees the router, logits and scores [tokens, experts], and chosen [tokens, k].
        self.observe: Callable[[Router, Tensor, Tensor, Tensor], None] | None = None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """scores [tokens, experts], chosen and their weights [tokens, k], margin [tokens]; float32 throughout."""
        c, k = self.c, self.k
        with torch.autocast("cpu", enabled=False):
            logits = F.linear(x.float(), self.weight.float())
        scores = torch.softmax(logits, -1) if c.scoring == "softmax" else torch.sigmoid(logits)
        ranked, chosen = highest(scores.detach() + self.e_score_correction_bias, min(k + 1, c.expert_count))
        chosen = chosen[:, :k]
        margin = ranked[:, k - 1] - ranked[:, k] if k < c.expert_count else torch.full_like(ranked[:, 0], float("inf"))
        if self.observe:
            self.observe(self, logits, scores, chosen)
        weights = scores.gather(-1, chosen)
        if c.normalise and (k > 1 or c.normalise_single):
            weights = weights / weights.sum(-1, keepdim=True)
        return scores, chosen, weights * c.scaling, margin


class MoE(nn.Module):
    def __init__(self, c: Config, k: int):
        super().__init__()
        self.gate = Router(c, k)
        # Gate and up projection of an expert are one matrix here, so that each expert costs two products.
        self.gate_up = nn.Parameter(torch.empty(c.expert_count, 2 * c.expert_size, c.hidden_size))
        self.down = nn.Parameter(torch.empty(c.expert_count, c.hidden_size, c.expert_size))
        self.shared_experts = DenseFeedForward(c.hidden_size, c.shared_size) if c.shared_size else None

    def forward(self, x: Tensor, record: Record) -> tuple[Tensor, Tensor]:
        scores, chosen, weights, margin = self.gate(x)
        record("router_scores", scores)
        record("chosen", chosen.int())
        record("weights", weights)
        y = self.experts(x, chosen, weights)
        if self.shared_experts is not None:
            y = y + self.shared_experts(x)
        return y, margin

    def experts(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Sorts the (token, choice) pairs by expert, so that each expert sees its tokens as one matrix."""
        k = chosen.shape[1]
        order = chosen.flatten().sort(dim=0, stable=True).indices
        counts = chosen.flatten().bincount(minlength=self.down.shape[0]).tolist()
        rows = order // k
        results = []
        for mine, gate_up, down in zip(x.index_select(0, rows).split(counts), self.gate_up.unbind(), self.down.unbind()):
            if mine.shape[0]:
                gate, up = F.linear(mine, gate_up).chunk(2, -1)
                results.append(F.linear(F.silu(gate) * up, down))
        y = torch.cat(results) * weights.flatten().index_select(0, order)[:, None]
        return torch.zeros_like(x).index_add(0, rows, y.to(x.dtype))


class Layer(nn.Module):
    def __init__(self, c: Config, index: int):
        super().__init__()
        self.index = index
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        k = c.chosen[index]
        self.mlp = MoE(c, k) if k else DenseFeedForward(c.hidden_size, c.dense_size)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, layout: Layout, cache: Cache | None, record: Record) -> tuple[Tensor, Tensor]:
        h = self.input_layernorm(x)
        record("attention_norm", h)
        x = x + self.self_attn(h, cos, sin, layout, self.index, cache, record)
        record("attention_residual", x)
        h = self.post_attention_layernorm(x)
        record("feed_forward_norm", h)
        if isinstance(self.mlp, MoE):
            y, margin = self.mlp(h, record)
        else:
            y, margin = self.mlp(h), torch.full((x.shape[0],), float("inf"))
        record("feed_forward", y)
        x = x + y
        record("residual", x)
        return x, margin


class Sigma(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Layer(c, i) for i in range(c.layer_count))
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.lm_head = nn.Linear(c.hidden_size, c.vocab_size, bias=False)
        if c.tied:
            self.lm_head.weight = self.embed_tokens.weight
        self.frequencies, self.rope_magnitude = inverse_frequencies(c)

    def hidden(self, tokens: Tensor, layout: Layout, cache: Cache | None = None, record: Record | None = None) -> tuple[Tensor, Tensor]:
        """The normalised residual stream after all layers [tokens, hidden], and the router margin [tokens]: how far the
        last chosen expert is ahead of the first one not chosen, at the layer where that is closest."""
        note = record or (lambda name, value: None)
        angles = layout.positions.float()[:, None] * self.frequencies
        cos, sin = (angles.cos() * self.rope_magnitude)[:, None], (angles.sin() * self.rope_magnitude)[:, None]
        x = self.embed_tokens(tokens)
        note("embedding", x)
        margins = torch.full((tokens.shape[0],), float("inf"))
        for i, layer in enumerate(self.layers):
            x, margin = layer(x, cos, sin, layout, cache, lambda name, value: note(f"layer.{i}.{name}", value))
            margins = torch.minimum(margins, margin)
        x = self.norm(x)
        note("final_norm", x)
        return x, margins

    @torch.no_grad()
    def run(self, tokens: list[int], record: Record | None = None) -> tuple[Tensor, Tensor]:
        """One sequence: logits [tokens, vocab] and router margins [tokens]."""
        x, margins = self.hidden(torch.tensor(tokens), Layout.of([len(tokens)]), record=record)
        logits = self.lm_head(x)
        if record:
            record("logits", logits)
        return logits, margins

    @torch.no_grad()
    def greedy(self, prompts: Tensor, limit: int, stop: set[int] = frozenset()) -> tuple[list[list[int]], Tensor]:
        """Continues equally long prompts [sequences, length]; ties go to the lowest id.

        Returns the new tokens of each, up to and including the first stop token, and how far the best logit was ahead of
        the second at each step [sequences, steps].
        """
        count, cache, fresh = prompts.shape[0], Cache(self.c.layer_count), prompts
        steps, gaps, running = [], [], torch.ones(count, dtype=torch.bool)
        stops = torch.tensor(sorted(stop), dtype=torch.long)
        while len(steps) < limit and running.any():
            layout = Layout.of([fresh.shape[1]] * count, start=cache.length)
            x, _ = self.hidden(fresh.flatten(), layout, cache)
            logits = self.lm_head(x.view(count, -1, self.c.hidden_size)[:, -1])
            best, order = logits.sort(dim=-1, descending=True, stable=True)
            fresh = order[:, :1]
            steps.append(fresh[:, 0])
            gaps.append(best[:, 0] - best[:, 1])
            running &= ~torch.isin(fresh[:, 0], stops)
        made = torch.stack(steps, 1).tolist()
        ends = [next((i + 1 for i, t in enumerate(row) if t in stop), len(row)) for row in made]
        return [row[:end] for row, end in zip(made, ends)], torch.stack(gaps, 1)
