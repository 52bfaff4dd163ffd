"""Tiny random checkpoints of dense models with transformers' log-probabilities and greedy text, for the tests.

Writes Tests/Fixtures/reference/<name>/ as make_fixtures.py does: config.json, model.safetensors and expected.safetensors. All numbers are
transformers' own. Weights are drawn again until no greedy choice is close.
"""

import hashlib
import json
import shutil

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging

from make_fixtures import FIXTURES, GREEDY_LENGTH, PROMPT_LENGTH, fill_randomly

COMMON = dict(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=512, bos_token_id=None, eos_token_id=None, tie_word_embeddings=False,
)  # fmt: skip

# Original context and head size are such that some pairs keep their frequency, some are on the ramp and some are divided.
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip

VARIANTS = {
    "llama3-scaling": (LlamaConfig, LlamaForCausalLM, {"head_dim": 16, "rope_parameters": LLAMA3, "eos_token_id": [1, 2], "tie_word_embeddings": True}),
    "qwen2-biases": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3-dense": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 16}),
}


def make(name: str):
    config_type, model_type, changes = VARIANTS[name]
    folder = FIXTURES / name
    for attempt in range(1000):
        seed = int.from_bytes(hashlib.sha256(f"{name} {attempt}".encode()).digest()[:4], "little")
        generator = torch.Generator().manual_seed(seed)
        drawn = model_type(config_type(**{**COMMON, **changes})).eval()
        fill_randomly(list(drawn.named_parameters()), generator)
        drawn.to(torch.bfloat16)
        tokens = torch.randint(COMMON["vocab_size"], (PROMPT_LENGTH,), generator=generator).tolist()
        shutil.rmtree(folder, ignore_errors=True)
        drawn.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        model = model_type.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        sequence, gaps = list(tokens), []
        with torch.no_grad():
            log_probs = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
            for _ in range(GREEDY_LENGTH):
                best = model(torch.tensor([sequence])).logits[0, -1].topk(2)
                gaps.append((best.values[0] - best.values[1]).item())
                sequence.append(best.indices[0].item())
        greedy = sequence[PROMPT_LENGTH:]
        if min(gaps) < 2e-2 or len(set(greedy)) < 5:
            continue
        save_file(
            {
                "tokens": torch.tensor(tokens, dtype=torch.int32),
                "log_probs": log_probs.contiguous(),
                "margins": torch.full((PROMPT_LENGTH,), float("inf")),
                "greedy": torch.tensor(greedy, dtype=torch.int32),
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
    for name in VARIANTS:
        make(name)
