"""Reads and writes Hugging Face checkpoints: `config.json` and safetensors, whole or in shards with an index."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sigma_config import CheckpointError, Config
from sigma_reference import MoE, Sigma

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


def read_tensors(folder: Path) -> dict[str, Tensor]:
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return load_file(folder / "model.safetensors")
    shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    return {name: tensor for shard in shards for name, tensor in load_file(folder / shard).items()}


def load_model(folder: Path | str, use_rope_scaling: bool = False) -> Sigma:
    """The model in float32. Every tensor of the checkpoint must find its place, and every place its tensor."""
    folder = Path(folder)
    config = Config.load(folder, use_rope_scaling)
    tensors = read_tensors(folder)
    if "lm_head.weight" not in tensors and not config.tied:
        config = Config(**{**config.__dict__, "tied": True})
    model = Sigma(config)
    if config.tied:
        tensors.pop("lm_head.weight", None)

    def take(name: str) -> Tensor:
        if name not in tensors:
            raise CheckpointError(f"{name}: missing")
        return tensors.pop(name).float()

    def fill(place: Tensor, value: Tensor, name: str):
        if place.shape != value.shape:
            raise CheckpointError(f"{name}: expected shape {tuple(place.shape)}, found {tuple(value.shape)}")
        place.data.copy_(value)

    def fill_from(place: Tensor, name: str):
        fill(place, take(name), name)

    fill_from(model.embed_tokens.weight, "model.embed_tokens.weight")
    fill_from(model.norm.weight, "model.norm.weight")
    if not config.tied:
        fill_from(model.lm_head.weight, "lm_head.weight")
    for i, layer in enumerate(model.layers):
        prefix = f"model.layers.{i}."
        fill_from(layer.input_layernorm.weight, prefix + "input_layernorm.weight")
        fill_from(layer.post_attention_layernorm.weight, prefix + "post_attention_layernorm.weight")
        for name in "qkvo":
            linear = getattr(layer.self_attn, f"{name}_proj")
            fill_from(linear.weight, f"{prefix}self_attn.{name}_proj.weight")
            if f"{prefix}self_attn.{name}_proj.bias" in tensors:
                linear.bias = torch.nn.Parameter(take(f"{prefix}self_attn.{name}_proj.bias"))
        for name in "qk" if config.qk_norm else "":
            full, short = (f"{prefix}self_attn.{name}_{norm}.weight" for norm in ("layernorm", "norm"))
            fill_from(getattr(layer.self_attn, f"{name}_norm").weight, full if full in tensors else short)
        if not isinstance(layer.mlp, MoE):
            for name in PROJECTIONS:
                fill_from(getattr(layer.mlp, name).weight, f"{prefix}mlp.{name}.weight")
            continue
        fill_from(layer.mlp.gate.weight, prefix + "mlp.gate.weight")
        bias = prefix + "mlp.gate.e_score_correction_bias"
        if config.selection_bias and bias in tensors:
            fill_from(layer.mlp.gate.e_score_correction_bias, bias)
        for e in range(config.expert_count):
            gate, up, down = (take(f"{prefix}mlp.experts.{e}.{name}.weight") for name in PROJECTIONS)
            fill(layer.mlp.gate_up[e], torch.cat([gate, up]), f"{prefix}mlp.experts.{e}")
            fill(layer.mlp.down[e], down, f"{prefix}mlp.experts.{e}.down_proj")
        for name in PROJECTIONS if config.shared_size else ():
            fill_from(getattr(layer.mlp.shared_experts, name).weight, f"{prefix}mlp.shared_experts.{name}.weight")
    ignored = (f"self_attn.{x}_{norm}.weight" for x in "qk" for norm in ("layernorm", "norm"))
    ignored = tuple(ignored) if not config.qk_norm else ()
    unused = [name for name in tensors if not name.endswith(ignored)]
    if unused:
        raise CheckpointError(f"tensors without a place: {', '.join(sorted(unused)[:4])}")
    return model.eval()


def tensors_of(model: Sigma, qk_norm_name: str = "layernorm", selection_bias: bool = True) -> dict[str, Tensor]:
    """The model's tensors under their Hugging Face names, float32."""
    out = {"model.embed_tokens.weight": model.embed_tokens.weight, "model.norm.weight": model.norm.weight}
    if not model.c.tied:
        out["lm_head.weight"] = model.lm_head.weight
    for i, layer in enumerate(model.layers):
        prefix = f"model.layers.{i}."
        out[prefix + "input_layernorm.weight"] = layer.input_layernorm.weight
        out[prefix + "post_attention_layernorm.weight"] = layer.post_attention_layernorm.weight
        for name in "qkvo":
            linear = getattr(layer.self_attn, f"{name}_proj")
            out[f"{prefix}self_attn.{name}_proj.weight"] = linear.weight
            if linear.bias is not None:
                out[f"{prefix}self_attn.{name}_proj.bias"] = linear.bias
        for name in "qk" if model.c.qk_norm else "":
            out[f"{prefix}self_attn.{name}_{qk_norm_name}.weight"] = getattr(layer.self_attn, f"{name}_norm").weight
        if not isinstance(layer.mlp, MoE):
            for name in PROJECTIONS:
                out[f"{prefix}mlp.{name}.weight"] = getattr(layer.mlp, name).weight
            continue
        out[prefix + "mlp.gate.weight"] = layer.mlp.gate.weight
        if selection_bias:
            out[prefix + "mlp.gate.e_score_correction_bias"] = layer.mlp.gate.e_score_correction_bias
        for e in range(model.c.expert_count):
            gate, up = layer.mlp.gate_up[e].chunk(2)
            for name, tensor in zip(PROJECTIONS, (gate, up, layer.mlp.down[e])):
                out[f"{prefix}mlp.experts.{e}.{name}.weight"] = tensor
        for name in PROJECTIONS if layer.mlp.shared_experts is not None else ():
            out[f"{prefix}mlp.shared_experts.{name}.weight"] = getattr(layer.mlp.shared_experts, name).weight
    return {name: tensor.detach().float() for name, tensor in out.items()}


def save_tensors(folder: Path | str, tensors: dict[str, Tensor], dtype: torch.dtype, shards: int = 1):
    """Writes `model.safetensors`, or shards with their index. The selection bias stays float32 in every checkpoint."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    typed = {
        name: tensor.to(torch.float32 if name.endswith("e_score_correction_bias") else dtype).contiguous().clone()
        for name, tensor in sorted(tensors.items())
    }
    if shards == 1:
        return save_file(typed, folder / "model.safetensors", metadata={"format": "pt"})
    names, weight_map = sorted(typed), {}
    for s in range(shards):
        file = f"model-{s + 1:05d}-of-{shards:05d}.safetensors"
        part = names[s * len(names) // shards : (s + 1) * len(names) // shards]
        save_file({name: typed[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map.update({name: file for name in part})
    size = sum(t.numel() * t.element_size() for t in typed.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
