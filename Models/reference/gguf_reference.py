"""A dense model's forward pass from the values of its GGUF file, in numpy: what an engine's numbers are held to.

Architectures `llama`, `qwen2` and `qwen3`. Weights are what the `gguf` package makes of the file's blocks; everything is computed in float32
(sums of the norms and the softmax in float64), in the file's own order of rows: nothing here knows how an engine lays them out.
"""

from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize


class DenseModel:
    def __init__(self, path: Path | str):
        reader = GGUFReader(path)
        self.fields = reader.fields
        self.architecture = self.field("general.architecture")
        if self.architecture not in ("llama", "qwen2", "qwen3"):
            raise ValueError(f"{path}: expected a dense model, found {self.architecture}")
        self.tensors = {t.name: t for t in reader.tensors}
        key = lambda name, default=None: self.field(f"{self.architecture}.{name}", default)
        self.layers = key("block_count")
        self.heads = key("attention.head_count")
        self.kv_heads = key("attention.head_count_kv", self.heads)
        self.head_dim = key("attention.key_length", key("embedding_length") // self.heads)
        self.eps = key("attention.layer_norm_rms_epsilon")
        self.theta = key("rope.freq_base", 10000.0)
        if key("rope.scaling.type", "none") != "none":
            raise ValueError(f"{path}: scaled RoPE is not implemented")
        self.weights = {}

    def field(self, name, default=None):
        return self.fields[name].contents() if name in self.fields else default

    def weight(self, name: str) -> np.ndarray | None:
        """[outputs, inputs] or [size] in float32."""
        if name not in self.weights:
            tensor = self.tensors.get(name)
            if tensor is None:
                return None
            self.weights[name] = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        return self.weights[name]

    def norm(self, x, name):
        scale = 1 / np.sqrt(np.mean(np.square(x, dtype=np.float64), -1, keepdims=True) + self.eps)
        return (x * scale.astype(np.float32)) * self.weight(name)

    def linear(self, x, name):
        y = x @ self.weight(name + ".weight").T
        bias = self.weight(name + ".bias")
        return y if bias is None else y + bias

    def rotate(self, x):
        """RoPE at positions 0, 1, ...; x [tokens, heads, head_dim]. llama's files have a head's rows in pairs, the others in halves."""
        half = self.head_dim // 2
        frequencies = self.theta ** (-np.arange(half, dtype=np.float64) / half)
        if (divisors := self.weight("rope_freqs.weight")) is not None:
            frequencies = frequencies / divisors
        angles = np.arange(x.shape[0])[:, None] * frequencies
        cos, sin = (f(angles)[:, None].astype(np.float32) for f in (np.cos, np.sin))
        y = np.empty_like(x)
        even, odd = (slice(0, None, 2), slice(1, None, 2)) if self.architecture == "llama" else (slice(0, half), slice(half, None))
        y[..., even] = x[..., even] * cos - x[..., odd] * sin
        y[..., odd] = x[..., odd] * cos + x[..., even] * sin
        return y

    def attention(self, x, prefix):
        tokens = x.shape[0]
        q = self.linear(x, prefix + "attn_q").reshape(tokens, self.heads, self.head_dim)
        k = self.linear(x, prefix + "attn_k").reshape(tokens, self.kv_heads, self.head_dim)
        v = self.linear(x, prefix + "attn_v").reshape(tokens, self.kv_heads, self.head_dim)
        if self.architecture == "qwen3":
            q, k = self.norm(q, prefix + "attn_q_norm.weight"), self.norm(k, prefix + "attn_k_norm.weight")
        q, k = self.rotate(q), self.rotate(k)
        group = self.heads // self.kv_heads
        k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
        scores = np.einsum("qhd,khd->hqk", q, k).astype(np.float64) / np.sqrt(self.head_dim)
        scores = np.where(np.tri(tokens, dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights = (weights / weights.sum(-1, keepdims=True)).astype(np.float32)
        return self.linear(np.einsum("hqk,khd->qhd", weights, v).reshape(tokens, -1), prefix + "attn_output")

    def log_probs(self, tokens: list[int]) -> np.ndarray:
        """[tokens, vocabulary], in float64."""
        x = self.weight("token_embd.weight")[tokens]
        for i in range(self.layers):
            prefix = f"blk.{i}."
            x = x + self.attention(self.norm(x, prefix + "attn_norm.weight"), prefix)
            h = self.norm(x, prefix + "ffn_norm.weight")
            gate, up = self.linear(h, prefix + "ffn_gate"), self.linear(h, prefix + "ffn_up")
            x = x + self.linear(gate / (1 + np.exp(-gate)) * up, prefix + "ffn_down")
        x = self.norm(x, "output_norm.weight")
        head = self.weight("output.weight")
        logits = (x @ (self.weight("token_embd.weight") if head is None else head).T).astype(np.float64)
        top = logits.max(-1, keepdims=True)
        return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))

    def greedy(self, tokens: list[int], limit: int, stop: set[int]) -> list[int]:
        """Continues a prompt, without the stop token. Computes everything again for each token."""
        made = []
        while len(made) < limit:
            token = int(self.log_probs(tokens + made)[-1].argmax())
            if token in stop:
                break
            made.append(token)
        return made
