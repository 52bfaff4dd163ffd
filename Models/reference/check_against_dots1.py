"""Holds the reference against transformers' Dots1, the nearest public architecture: Qwen3's attention, DeepSeek-V3's router.

    python Models/reference/check_against_dots1.py

Top-1 is left out: there Dots1 normalises the weight to 1, and Sigma does not.
"""

import tempfile
from pathlib import Path

import torch
from transformers import Dots1Config, Dots1ForCausalLM
from transformers.utils import logging

from make_fixtures import BASE, fill_randomly
from sigma_checkpoint import save_tensors, tensors_of
from sigma_config import Config
from sigma_reference import Sigma


def difference(normalise: bool) -> float:
    raw = {
        **BASE, "num_hidden_layers": 3, "num_experts_per_tok": 2, "norm_topk_prob": normalise, "routed_scaling_factor": 2.5,
        "n_shared_experts": 2, "first_k_dense_replace": 1,
    }
    generator = torch.Generator().manual_seed(5)
    ours = Sigma(Config.parse(raw))
    biases = [named for named in ours.named_buffers() if named[0].endswith("e_score_correction_bias")]
    fill_randomly([*ours.named_parameters(), *biases], generator)
    tokens = torch.randint(raw["vocab_size"], (12,), generator=generator)

    shared = ("vocab_size", "hidden_size", "intermediate_size", "moe_intermediate_size", "num_hidden_layers", "num_attention_heads",
              "num_key_value_heads", "head_dim", "n_routed_experts", "n_shared_experts", "num_experts_per_tok", "norm_topk_prob",
              "routed_scaling_factor", "first_k_dense_replace", "rms_norm_eps", "rope_theta")
    config = Dots1Config(**{key: raw[key] for key in shared}, n_group=1, topk_group=1, sliding_window=None,
                         layer_types=["full_attention"] * 3, architectures=["Dots1ForCausalLM"])
    with tempfile.TemporaryDirectory() as folder:
        save_tensors(folder, tensors_of(ours, qk_norm_name="norm"), torch.float32)
        config.save_pretrained(folder)
        theirs = Dots1ForCausalLM.from_pretrained(Path(folder), attn_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad():
        expected = theirs(tokens[None]).logits[0]
    return (ours.run(tokens.tolist())[0] - expected).abs().max().item()


if __name__ == "__main__":
    logging.disable_progress_bar()
    for normalise in (False, True):
        worst = difference(normalise)
        print(f"norm_topk_prob {normalise}: largest difference of a logit {worst:.1e}")
        assert worst < 1e-4
