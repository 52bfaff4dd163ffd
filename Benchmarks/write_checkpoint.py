"""Writes a Hugging Face checkpoint of Sigma-MoE-Tiny's width with random bf16 weights, to convert at scale.

    python Benchmarks/write_checkpoint.py FOLDER --layers 24     # 18 GB

The weights are normal numbers from one buffer that is used again and again: converting does not depend on their values. With
--holes the files have the same size, all zeros, and take no room: enough for measuring memory.
"""

import argparse
import json
import os
import struct

import numpy as np

HIDDEN, EXPERT, EXPERTS, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY = 1536, 768, 96, 16, 4, 96, 200064
SHARD_BYTES = 4 << 30


def tensors(layers):
    yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (HIDDEN,)
        yield prefix + "post_attention_layernorm.weight", (HIDDEN,)
        yield prefix + "self_attn.q_proj.weight", (HEADS * HEAD_DIM, HIDDEN)
        yield prefix + "self_attn.k_proj.weight", (KV_HEADS * HEAD_DIM, HIDDEN)
        yield prefix + "self_attn.v_proj.weight", (KV_HEADS * HEAD_DIM, HIDDEN)
        yield prefix + "self_attn.o_proj.weight", (HIDDEN, HEADS * HEAD_DIM)
        yield prefix + "self_attn.q_layernorm.weight", (HEAD_DIM,)
        yield prefix + "self_attn.k_layernorm.weight", (HEAD_DIM,)
        yield prefix + "mlp.gate.weight", (EXPERTS, HIDDEN)
        for expert in range(EXPERTS):
            for part in ("gate", "up", "down"):
                shape = (HIDDEN, EXPERT) if part == "down" else (EXPERT, HIDDEN)
                yield prefix + f"mlp.experts.{expert}.{part}_proj.weight", shape
    yield "model.norm.weight", (HIDDEN,)
    yield "lm_head.weight", (VOCABULARY, HIDDEN)


def config(layers):
    return {
        "architectures": ["SigmaForCausalLM"], "model_type": "sigma", "vocab_size": VOCABULARY, "hidden_size": HIDDEN,
        "num_hidden_layers": layers, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM, "moe_intermediate_size": EXPERT, "intermediate_size": EXPERT,
        "n_routed_experts": EXPERTS, "num_experts_per_tok": 1, "norm_topk_prob": True, "routed_scaling_factor": 1.0,
        "scoring_func": "sigmoid", "first_k_dense_replace": 0, "qk_layernorm": True, "attention_bias": False,
        "rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 131072, "tie_word_embeddings": False,
        "hidden_act": "silu",
    }


def shards(layers):
    shard, size = [], 0
    for name, shape in tensors(layers):
        count = int(np.prod(shape))
        if size + 2 * count > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append((name, shape, count))
        size += 2 * count
    yield shard


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--holes", action="store_true")
    arguments = parser.parse_args()
    os.makedirs(arguments.folder, exist_ok=True)
    with open(f"{arguments.folder}/config.json", "w") as file:
        json.dump(config(arguments.layers), file, indent=1)

    values = np.random.default_rng(0).standard_normal(1 << 24, dtype=np.float32) * 0.03
    buffer = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    place = 0
    index = {}
    all_shards = list(shards(arguments.layers))
    for number, shard in enumerate(all_shards, 1):
        name = f"model-{number:05}-of-{len(all_shards):05}.safetensors"
        header, offset = {}, 0
        for tensor, shape, count in shard:
            header[tensor] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + 2 * count]}
            index[tensor] = name
            offset += 2 * count
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(f"{arguments.folder}/{name}", "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            if arguments.holes:
                file.truncate(file.tell() + offset)
                continue
            left = offset
            while left > 0:
                piece = min(left, len(buffer) - place)
                file.write(memoryview(buffer)[place:place + piece])
                place = (place + piece) % len(buffer)
                left -= piece
    with open(f"{arguments.folder}/model.safetensors.index.json", "w") as file:
        json.dump({"metadata": {}, "weight_map": index}, file)


if __name__ == "__main__":
    main()
