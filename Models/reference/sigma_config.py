"""What a Hugging Face `config.json` says about a Sigma or Qwen3-MoE model, with every open point settled."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch

SIGMA = ("SigmaForCausalLM", "SigmaV2ForCausalLM")
QWEN = ("Qwen3MoeForCausalLM",)


class CheckpointError(ValueError):
    """A checkpoint that is not what it claims, or asks for what is not implemented."""


@dataclass(frozen=True)
class Config:
    vocab_size: int
    hidden_size: int
    head_count: int
    kv_head_count: int
    head_dim: int
    expert_count: int
    expert_size: int  # intermediate size of one routed expert
    shared_size: int  # of the shared experts together; 0 without
    dense_size: int  # of a dense layer
    chosen: tuple[int, ...]  # experts per token, one entry per layer; 0 marks a dense layer
    scoring: str  # "sigmoid" or "softmax", over all experts
    selection_bias: bool  # does the router read e_score_correction_bias?
    normalise: bool  # weights of the chosen experts sum to 1 ...
    normalise_single: bool  # ... at k = 1 too (Qwen3), where the weight is then exactly 1
    scaling: float  # routed_scaling_factor
    qk_norm: bool
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: dict | None  # as it is used, not as the file has it
    max_position_embeddings: int
    tied: bool

    @property
    def layer_count(self) -> int:
        return len(self.chosen)

    @staticmethod
    def load(folder: Path | str, use_rope_scaling: bool = False) -> "Config":
        return Config.parse(json.loads((Path(folder) / "config.json").read_text()), use_rope_scaling)

    @staticmethod
    def parse(raw: dict, use_rope_scaling: bool = False) -> "Config":
        """`use_rope_scaling` turns on what Sigma checkpoints say about `rope_scaling`, and their authors' code ignores."""
        architecture = (raw.get("architectures") or ["?"])[0]
        if architecture not in SIGMA + QWEN:
            raise CheckpointError(f"architectures: expected one of {SIGMA + QWEN}, found {architecture}")
        if raw.get("hidden_act", "silu") != "silu":
            raise CheckpointError(f"hidden_act: expected silu, found {raw['hidden_act']}")
        qwen = architecture in QWEN
        if qwen and raw.get("use_sliding_window"):
            raise CheckpointError("use_sliding_window: not implemented")

        layers = raw["num_hidden_layers"]
        per_token = raw["num_experts_per_tok"]
        if qwen:
            dense, step = raw.get("mlp_only_layers") or [], raw.get("decoder_sparse_step", 1)
            chosen = [0 if i in dense or (i + 1) % step else per_token for i in range(layers)]
        else:
            # The list goes by absolute layer index, dense layers counted; where it ends, the common value goes on.
            listed = (raw.get("num_experts_per_tok_layer_wise") or [])[:layers]
            chosen = [*listed, *[per_token] * (layers - len(listed))]
            for i in range(raw.get("first_k_dense_replace") or 0):
                chosen[i] = 0

        # Newer transformers keep theta and scaling in one dictionary.
        rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        scaled = kind != "default" and (qwen or use_rope_scaling)

        return Config(
            vocab_size=raw["vocab_size"],
            hidden_size=raw["hidden_size"],
            head_count=raw["num_attention_heads"],
            kv_head_count=raw.get("num_key_value_heads") or raw["num_attention_heads"],
            head_dim=raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"],
            # transformers 5 may write the name on the left of its attribute map.
            expert_count=(raw.get("num_experts") or raw["num_local_experts"]) if qwen else raw["n_routed_experts"],
            expert_size=raw["moe_intermediate_size"],
            shared_size=(raw.get("n_shared_experts") or 0) * raw["moe_intermediate_size"],
            dense_size=raw.get("intermediate_size") or 0,
            chosen=tuple(chosen),
            scoring="softmax" if qwen else raw.get("scoring_func", "sigmoid"),
            selection_bias=not qwen,
            normalise=bool(raw.get("norm_topk_prob", False)),
            normalise_single=qwen,
            scaling=1.0 if qwen else float(raw.get("routed_scaling_factor") or 1.0),
            qk_norm=True if qwen else bool(raw.get("qk_layernorm", True)),
            rms_norm_eps=raw.get("rms_norm_eps", 1e-6),
            rope_theta=float(raw.get("rope_theta") or rope.get("rope_theta") or 10_000.0),
            rope_scaling={**rope, "rope_type": kind} if scaled else None,
            max_position_embeddings=raw.get("max_position_embeddings", 4096),
            tied=bool(raw.get("tie_word_embeddings", False)),
        )


def inverse_frequencies(config: Config) -> tuple[torch.Tensor, float]:
    """RoPE's inverse frequencies [head_dim / 2], and the factor on its cosines and sines (1 except for yarn)."""
    dim, theta, scaling = config.head_dim, config.rope_theta, config.rope_scaling
    plain = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    if scaling is None:
        return plain, 1.0
    factor = float(scaling["factor"])
    if scaling["rope_type"] == "linear":
        return plain / factor, 1.0
    if scaling["rope_type"] != "yarn":
        raise CheckpointError(f"rope_scaling: linear and yarn are implemented, found {scaling['rope_type']}")

    original = scaling.get("original_max_position_embeddings") or config.max_position_embeddings

    def dimension(turns: float) -> float:
        """The pair (as a real number) that turns `turns` times within the original context."""
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension(scaling.get("beta_fast") or 32), dimension(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    # Fast pairs keep their frequency, slow ones are interpolated, with a linear ramp between.
    keep = 1 - ((torch.arange(dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    frequencies = plain / factor * (1 - keep) + plain * keep

    def magnitude(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    attention = scaling.get("attention_factor")
    if attention is None:
        over, under = scaling.get("mscale"), scaling.get("mscale_all_dim")
        attention = magnitude(over) / magnitude(under) if over and under else magnitude(1.0)
    return frequencies, float(attention)
