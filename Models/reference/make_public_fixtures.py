"""Tiny random checkpoints of public model families with transformers' log-probabilities and greedy text, for the tests.

    python Models/reference/make_public_fixtures.py [VARIANT ...]

Writes Tests/Fixtures/reference/<name>/ as make_fixtures.py does: config.json, model.safetensors and expected.safetensors. All numbers are
transformers' own. Weights are drawn again until no choice is close, of a token or of an expert.

FP8 checkpoints are written here: each block's largest weight becomes 448, the largest of E4M3, and `weight_scale_inv` is what undoes that. transformers
has kernels for them on GPUs only. Elsewhere it multiplies bytes and scales when it loads the checkpoint; what it then computes is what is kept, and
its weights are compared with that product by the formula.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config, Qwen3MoeConfig
from transformers.utils import logging

from make_fixtures import FIXTURES, GREEDY_LENGTH, PROMPT_LENGTH, fill_randomly

COMMON = dict(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=512, bos_token_id=None, eos_token_id=None, tie_word_embeddings=False,
)  # fmt: skip
EXPERTS = dict(head_dim=16, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2, norm_topk_prob=True)

# Original context and head size are such that some pairs keep their frequency, some are on the ramp and some are divided.
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
FP8_BLOCK = 16


def fuse_experts(folder: Path, _):
    """The experts of a layer in two tensors, as transformers 5 has them in memory: gate's rows, then up's; and down."""
    stored = load_file(folder / "model.safetensors")
    tensors = {name: tensor for name, tensor in stored.items() if ".experts." not in name}
    for prefix in sorted({name.split(".experts.")[0] + ".experts." for name in stored if ".experts." in name}):
        count = len({name[len(prefix):].split(".")[0] for name in stored if name.startswith(prefix)})
        part = lambda kind: [stored[f"{prefix}{expert}.{kind}_proj.weight"] for expert in range(count)]
        tensors[prefix + "gate_up_proj"] = torch.stack([torch.cat(pair) for pair in zip(part("gate"), part("up"))])
        tensors[prefix + "down_proj"] = torch.stack(part("down"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def to_fp8(folder: Path, block: int):
    """Projections become E4M3 with a scale for each block; embedding, norms, head and routers stay, as in Qwen's FP8 checkpoints."""
    tensors = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            tensors[name] = tensor
            continue
        rows, columns = tensor.shape
        blocks = tensor.float().reshape(rows // block, block, columns // block, block)
        scales = blocks.abs().amax((1, 3)) / 448
        quantized = (blocks / scales[:, None, :, None]).reshape(rows, columns).to(torch.float8_e4m3fn)
        tensors[name], tensors[name + "_scale_inv"] = quantized, scales
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [block, block],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def product(tensors: dict[str, Tensor], name: str, block: int) -> Tensor:
    """A matrix of an FP8 checkpoint by its formula."""
    scales = tensors[name + "_scale_inv"].repeat_interleave(block, 0).repeat_interleave(block, 1)
    return tensors[name].float() * scales


@dataclass
class Variant:
    """`store` rewrites the checkpoint that transformers saved; `fp8_block` is the size of blocks that it makes, 0 where there are none."""

    config: type
    changes: dict = field(default_factory=dict)
    store: Callable[[Path, int], None] | None = None
    fp8_block: int = 0


VARIANTS = {
    "llama3-scaling": Variant(LlamaConfig, {"head_dim": 16, "rope_parameters": LLAMA3, "eos_token_id": [1, 2], "tie_word_embeddings": True}),
    "qwen2-biases": Variant(Qwen2Config),
    "qwen3-dense": Variant(Qwen3Config, {"head_dim": 16}),
    "qwen3-fp8": Variant(Qwen3Config, {"head_dim": 16}, to_fp8, FP8_BLOCK),
    "qwen3-yarn": Variant(Qwen3Config, {"head_dim": 16, "rope_parameters": YARN, "max_position_embeddings": 64, "eos_token_id": [3, 5, 9]}),
    "qwen3moe-fp8": Variant(Qwen3MoeConfig, EXPERTS, to_fp8, FP8_BLOCK),
    "qwen3moe-fused": Variant(Qwen3MoeConfig, EXPERTS, fuse_experts),
    "qwen3moe-yarn": Variant(Qwen3MoeConfig, {**EXPERTS, "rope_parameters": YARN, "max_position_embeddings": 64}),
}  # fmt: skip


def draw(variant: Variant, generator: torch.Generator, folder: Path, larger: dict = {}):
    """A random checkpoint in `folder`, with `larger` sizes, and transformers' model of it."""
    model_type = AutoModelForCausalLM._model_mapping[variant.config]
    drawn = model_type(variant.config(**{**COMMON, **variant.changes, **larger})).eval()
    fill_randomly(list(drawn.named_parameters()), generator)
    drawn.to(torch.bfloat16)
    shutil.rmtree(folder, ignore_errors=True)
    drawn.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if variant.store is None:
        return load(folder)
    variant.store(folder, variant.fp8_block)
    model = load(folder)
    if variant.fp8_block:
        stored = load_file(folder / "model.safetensors")
        for name in stored:
            if name + "_scale_inv" in stored:
                assert torch.equal(weight_of(model, name), product(stored, name, variant.fp8_block)), name
    return model


def weight_of(model, name: str) -> Tensor:
    """A checkpoint's matrix in the model, which has the experts of a layer in two tensors."""
    if ".experts." not in name:
        return model.get_parameter(name)
    prefix, rest = name.split(".experts.")
    expert, kind, _ = rest.split(".")
    fused = model.get_parameter(f"{prefix}.experts.{'down_proj' if kind == 'down_proj' else 'gate_up_proj'}")[int(expert)]
    return fused if kind == "down_proj" else fused.chunk(2)[kind == "up_proj"]


def load(folder: Path):
    # What an FP8 checkpoint has in bf16 stays that; the values are the same.
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").float().eval()


def run(model, tokens: list[int]) -> tuple[Tensor, Tensor]:
    """Logits [tokens, vocabulary], and of each token the least difference between the last expert chosen and the first that was not."""
    routers = [module for name, module in model.named_modules() if name.endswith("mlp.gate") and hasattr(module, "top_k")]
    margins = torch.full((len(tokens),), float("inf"))

    def watch(router, inputs, _):
        scores = torch.nn.functional.linear(inputs[0].reshape(len(tokens), -1), router.weight).sort(-1, descending=True).values
        torch.minimum(margins, scores[:, router.top_k - 1] - scores[:, router.top_k], out=margins)

    hooks = [router.register_forward_hook(watch) for router in routers]
    assert bool(routers) == isinstance(model.config, Qwen3MoeConfig), "the routers have another name"
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0]
    for hook in hooks:
        hook.remove()
    return logits, margins


def greedy(model, tokens: list[int], count: int) -> tuple[list[int], list[float], float]:
    """Tokens, how far each was from the next likely one, and the least margin of an expert on the way."""
    sequence, gaps, margin = list(tokens), [], float("inf")
    for _ in range(count):
        logits, margins = run(model, sequence)
        best = logits[-1].topk(2)
        gaps.append((best.values[0] - best.values[1]).item())
        margin = min(margin, margins.min().item())
        sequence.append(best.indices[0].item())
    return sequence[len(tokens):], gaps, margin


def make(name: str):
    folder = FIXTURES / name
    for attempt in range(1000):
        seed = int.from_bytes(hashlib.sha256(f"{name} {attempt}".encode()).digest()[:4], "little")
        generator = torch.Generator().manual_seed(seed)
        model = draw(VARIANTS[name], generator, folder)
        tokens = torch.randint(COMMON["vocab_size"], (PROMPT_LENGTH,), generator=generator).tolist()
        logits, margins = run(model, tokens)
        found, gaps, margin = greedy(model, tokens, GREEDY_LENGTH)
        if min(gaps) < 2e-2 or margin < 5e-3 or len(set(found)) < 5:
            continue
        save_file(
            {
                "tokens": torch.tensor(tokens, dtype=torch.int32),
                "log_probs": logits.log_softmax(-1).contiguous(),
                "margins": margins,
                "greedy": torch.tensor(found, dtype=torch.int32),
                "greedy_margins": torch.tensor(gaps),
            },
            folder / "expected.safetensors",
        )
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{name}: {size:,} bytes, {json.loads((folder / 'config.json').read_text())['architectures'][0]}")
        return
    raise SystemExit(f"{name}: no lively draw")


if __name__ == "__main__":
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    for name in sys.argv[1:] or VARIANTS:
        make(name)
