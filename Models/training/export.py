"""Writes a trained model as a Hugging Face checkpoint that the engine's converter reads."""

import json
from pathlib import Path

import torch

from sigma_checkpoint import save_tensors, tensors_of
from sigma_reference import Sigma

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def hf_config(
    chosen: tuple[int, ...], *, vocabulary: int, hidden: int, heads: int, kv_heads: int, head_dim: int, experts: int, expert_size: int,
    context: int, bos: int, theta: float = 1e4, dtype: str = "bfloat16",
) -> dict:
    """`config.json` of a small Sigma model. `chosen` has the experts per token of every layer; the list is written while one of them
    is not 1."""
    return {
        "architectures": ["SigmaForCausalLM"],
        "model_type": "sigma",
        "torch_dtype": dtype,
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": len(chosen),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate_size": 4 * hidden,
        "moe_intermediate_size": expert_size,
        "n_routed_experts": experts,
        "n_shared_experts": None,
        "num_experts_per_tok": 1,
        "num_experts_per_tok_layer_wise": None if set(chosen) == {1} else list(chosen),
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "first_k_dense_replace": 0,
        "qk_layernorm": True,
        "attention_bias": False,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": theta,
        "rope_scaling": None,
        "sliding_window": None,
        "max_position_embeddings": context,
        "tie_word_embeddings": False,
        "bos_token_id": bos,
        "eos_token_id": bos,
    }


def set_experts_per_token(model: Sigma, chosen: tuple[int, ...]):
    for layer, k in zip(model.layers, chosen, strict=True):
        layer.mlp.gate.k = k


def write_checkpoint(target: Path, model: Sigma, config: dict, tokenizer: Path):
    """Replaces what is in `target`. `tokenizer` is a folder with the tokenizer's files; it may be `target` itself."""
    target.mkdir(parents=True, exist_ok=True)
    for file in target.iterdir():
        if file.name not in TOKENIZER_FILES:
            file.unlink()
    save_tensors(target, tensors_of(model), getattr(torch, config["torch_dtype"]))
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for name in TOKENIZER_FILES:
        (target / name).write_bytes((tokenizer / name).read_bytes())
