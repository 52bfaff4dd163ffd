"""Writes `Tests/Fixtures/reference/`: tiny random checkpoints, each with what the reference computes on them.

    python Models/reference/make_fixtures.py [VARIANT ...]

Seeded: the same files byte for byte with the versions in `Models/requirements.txt`.
"""

import hashlib
import json
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from sigma_checkpoint import load_model, save_tensors, tensors_of
from sigma_config import Config
from sigma_reference import MoE, Sigma

FIXTURES = Path(__file__).resolve().parents[2] / "Tests" / "Fixtures" / "reference"
PROMPT_LENGTH, GREEDY_LENGTH = 12, 16

BASE = {
    "architectures": ["SigmaForCausalLM"],
    "model_type": "sigma",
    "torch_dtype": "bfloat16",
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "intermediate_size": 64,
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "n_shared_experts": None,
    "num_experts_per_tok": 1,
    "num_experts_per_tok_layer_wise": None,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.0,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "first_k_dense_replace": 0,
    "qk_layernorm": True,
    "attention_bias": False,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "sliding_window": None,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}


@dataclass
class Variant:
    """How a fixture differs from `BASE`; a value of `...` removes the key."""

    config: dict = field(default_factory=dict)
    dtype: torch.dtype = torch.bfloat16
    shards: int = 1
    selection_bias: bool = True
    qk_norm_name: str = "layernorm"
    rope_scaling_used: bool = False
    activations: bool = False


LARGER = {"vocab_size": 96, "num_hidden_layers": 2, "moe_intermediate_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
SIGMA_VARIANTS = {
    "sigma-top1": Variant({**LARGER, "rope_theta": 1e6}, activations=True),
    "sigma-f16": Variant({"torch_dtype": "float16", "architectures": ["SigmaV2ForCausalLM"]}, dtype=torch.float16),
    "sigma-f32": Variant({"torch_dtype": "float32"}, dtype=torch.float32, shards=3),
    "sigma-odd-sizes": Variant(
        {"num_hidden_layers": 2, "hidden_size": 48, "moe_intermediate_size": 40, "n_routed_experts": 3, "vocab_size": 101,
         "rms_norm_eps": 1e-5}
    ),
    # Three layers and two entries: the third takes num_experts_per_tok, and its weight is not normalised.
    "sigma-topk-per-layer": Variant(
        {"num_hidden_layers": 3, "num_experts_per_tok_layer_wise": [3, 2]},
        activations=True,
    ),
    "sigma-topk-unnormalised": Variant({"num_experts_per_tok": 2, "norm_topk_prob": False}),
    "sigma-softmax": Variant({"scoring_func": "softmax", "num_experts_per_tok": 2}),
    "sigma-no-bias": Variant({"topk_method": "greedy"}, selection_bias=False),
    "sigma-scaled": Variant({"routed_scaling_factor": 2.5}),
    "sigma-shared-experts": Variant({"num_hidden_layers": 2, "n_shared_experts": 2, "routed_scaling_factor": 1.5}, activations=True),
    "sigma-dense-layers": Variant({"num_hidden_layers": 2, "first_k_dense_replace": 1, "num_experts_per_tok_layer_wise": [1, 2]}),
    "sigma-tied": Variant({"tie_word_embeddings": True}),
    "sigma-no-qk-norm": Variant({"qk_layernorm": False}),
    "sigma-qk-norm-names": Variant(qk_norm_name="norm"),
    "sigma-attention-bias": Variant({"attention_bias": True}),
    "sigma-head-dim-96": Variant({"head_dim": 96}),
    "sigma-head-dim-default": Variant({"hidden_size": 64, "head_dim": ..., "moe_intermediate_size": 8}),
    "sigma-rope-scaling-ignored": Variant({"rope_scaling": YARN, "sliding_window": 4}),
    "sigma-rope-yarn-override": Variant({"rope_scaling": YARN}, rope_scaling_used=True),
}


def draw(shape: torch.Size, spread: float, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator) * spread


def fill_randomly(named: list[tuple[str, Tensor]], generator: torch.Generator):
    """Weights at scales where attention, routing and the answer all depend on the input."""
    for name, tensor in named:
        if name.endswith("e_score_correction_bias"):
            value = draw(tensor.shape, 0.15, generator)
        elif name.endswith("bias"):
            value = draw(tensor.shape, 0.5, generator)
        elif "norm" in name:
            around = 1.4 if name.endswith(("q_norm.weight", "k_norm.weight")) else 1.0
            value = around + draw(tensor.shape, 0.25, generator)
        elif "embed" in name:
            value = draw(tensor.shape, 1.0, generator)
        else:
            gain = 1.5 if "lm_head" in name or name.endswith("gate.weight") else 1.2
            value = draw(tensor.shape, gain * tensor.shape[-1] ** -0.5, generator)
        tensor.data.copy_(value)


def expectations(model: Sigma, tokens: list[int], activations: bool) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}
    logits, margins = model.run(tokens, record=lambda name, value: seen.__setitem__(name, value.clone().contiguous()))
    [greedy], gaps = model.greedy(torch.tensor([tokens]), GREEDY_LENGTH)
    expected = {
        "tokens": torch.tensor(tokens, dtype=torch.int32),
        "log_probs": logits.log_softmax(-1),
        "margins": margins,
        "greedy": torch.tensor(greedy, dtype=torch.int32),
        "greedy_margins": gaps[0].contiguous(),
    }
    return {**expected, **seen} if activations else expected


def is_lively(model: Sigma, expected: dict[str, Tensor], tokens: list[int]) -> bool:
    """No close calls, which rounding could turn, and more than one expert at work in every layer."""
    seen: dict[str, Tensor] = {}
    model.run(tokens, record=lambda name, value: seen.__setitem__(name, value))
    chosen = [value[:, 0] for name, value in seen.items() if name.endswith("chosen")]
    distinct = expected["greedy"].unique().numel()
    return (
        expected["margins"].min() > 5e-3
        and expected["greedy_margins"].min() > 2e-2
        and distinct >= 5
        and all(layer.unique().numel() >= 3 for layer in chosen)
    )


def save_expected(folder: Path, expected: dict[str, Tensor]):
    save_file(expected, folder / "expected.safetensors")


def make_sigma(name: str, variant: Variant):
    config = {key: value for key, value in {**BASE, **variant.config}.items() if value is not ...}
    folder = FIXTURES / name
    for attempt in range(1000):
        seed = int.from_bytes(hashlib.sha256(f"{name} {attempt}".encode()).digest()[:4], "little")
        generator = torch.Generator().manual_seed(seed)
        drawn = Sigma(Config.parse(config))
        if config["attention_bias"]:
            for layer in drawn.layers:
                for letter in "qkvo":
                    linear = getattr(layer.self_attn, f"{letter}_proj")
                    linear.bias = torch.nn.Parameter(torch.empty(linear.out_features))
        named = list(drawn.named_parameters())
        if variant.selection_bias:
            named += [b for b in drawn.named_buffers() if b[0].endswith("e_score_correction_bias")]
        fill_randomly(named, generator)
        tokens = torch.randint(config["vocab_size"], (PROMPT_LENGTH,), generator=generator).tolist()

        shutil.rmtree(folder, ignore_errors=True)
        tensors = tensors_of(drawn, variant.qk_norm_name, variant.selection_bias)
        save_tensors(folder, tensors, variant.dtype, variant.shards)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        model = load_model(folder, variant.rope_scaling_used)  # as stored, in the checkpoint's type
        expected = expectations(model, tokens, variant.activations)
        if is_lively(model, expected, tokens):
            return save_expected(folder, expected)
    raise SystemExit(f"{name}: no lively draw")


# The keys as published Qwen3-MoE checkpoints have them; the second variant keeps what transformers writes today.
QWEN_VARIANTS = {
    "qwen3moe": ({"num_experts_per_tok": 2, "norm_topk_prob": True}, True),
    "qwen3moe-mixed-layers": (
        {"num_experts_per_tok": 1, "norm_topk_prob": True, "num_hidden_layers": 4, "mlp_only_layers": [3], "decoder_sparse_step": 2,
         "attention_bias": True},
        False,
    ),
}


def make_qwen(name: str, changes: dict, published_keys: bool):
    """Everything but the margins comes from transformers; the reference has to agree with it."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    common = dict(
        vocab_size=64, hidden_size=32, intermediate_size=48, moe_intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, num_experts=4, max_position_embeddings=4096, rope_theta=1e6, use_sliding_window=False,
        bos_token_id=None, eos_token_id=None, tie_word_embeddings=False,
    )
    folder = FIXTURES / name
    for attempt in range(1000):
        seed = int.from_bytes(hashlib.sha256(f"{name} {attempt}".encode()).digest()[:4], "little")
        generator = torch.Generator().manual_seed(seed)
        theirs = Qwen3MoeForCausalLM(Qwen3MoeConfig(**{**common, **changes})).eval()
        fill_randomly(list(theirs.named_parameters()), generator)
        theirs.to(torch.bfloat16)
        tokens = torch.randint(common["vocab_size"], (PROMPT_LENGTH,), generator=generator).tolist()
        shutil.rmtree(folder, ignore_errors=True)
        theirs.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        config = json.loads((folder / "config.json").read_text())
        if published_keys:
            config.pop("rope_parameters")
            config.update(rope_theta=1e6, rope_scaling=None, torch_dtype=config.pop("dtype"), num_experts=config.pop("num_local_experts", 4))
            (folder / "config.json").write_text(json.dumps(dict(sorted(config.items())), indent=2) + "\n")

        theirs = Qwen3MoeForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        assert theirs.config._attn_implementation == "eager"
        model = load_model(folder)
        expected = expectations(model, tokens, activations=False)
        if not is_lively(model, expected, tokens):
            continue
        with torch.no_grad():
            log_probs = theirs(torch.tensor([tokens])).logits[0].log_softmax(-1)
            sequence = list(tokens)
            for _ in range(GREEDY_LENGTH):
                sequence.append(theirs(torch.tensor([sequence])).logits[0, -1].argmax().item())
        difference = (log_probs - expected["log_probs"]).abs().max().item()
        assert difference < 1e-4, f"{name}: reference and transformers differ by {difference}"
        assert sequence[PROMPT_LENGTH:] == expected["greedy"].tolist(), f"{name}: greedy texts differ"
        print(f"{name}: reference and transformers differ by {difference:.1e} at most")
        return save_expected(folder, {**expected, "log_probs": log_probs.contiguous()})
    raise SystemExit(f"{name}: no lively draw")


def main():
    torch.set_num_threads(1)
    wanted = sys.argv[1:] or [*SIGMA_VARIANTS, *QWEN_VARIANTS]
    for name in wanted:
        if name in SIGMA_VARIANTS:
            make_sigma(name, SIGMA_VARIANTS[name])
        else:
            make_qwen(name, *QWEN_VARIANTS[name])
        size = sum(file.stat().st_size for file in (FIXTURES / name).iterdir())
        print(f"{name}: {size:,} bytes")


if __name__ == "__main__":
    main()
