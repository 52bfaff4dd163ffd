"""Random Qwen3-MoE models as GGUF files: weights, metadata and tokenizer as llama.cpp's converter writes them.

Matrices are written in one type, or mixed as Q4_K_M files are. K-quants are made of random bits with sane scales: every such block is
valid, and no quantizer is needed.
"""

import argparse
from dataclasses import dataclass

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

TYPES = {
    "f32": Type.F32, "f16": Type.F16, "bf16": Type.BF16, "q8_0": Type.Q8_0, "q4_0": Type.Q4_0,
    "q4_k": Type.Q4_K, "q6_k": Type.Q6_K,
}


@dataclass
class Shape:
    layers: int = 4
    hidden: int = 256
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    experts: int = 16
    used: int = 1
    intermediate: int = 256
    vocabulary: int = 384
    context: int = 4096
    rope_base: float = 1e6
    # Routers that choose by a part of the embedding that each token has by construction: wide margins between experts.
    wide_margins: bool = False
    tied: bool = False


def random_blocks(rng, shape, kind):
    """Bytes [..., row bytes] of random blocks, whose weights have a deviation of about 0.05, and what they stand for is in their bits."""
    *rest, columns = shape
    length, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (*rest, columns // length, size), dtype=np.uint8)

    def halves(low, high):
        return rng.uniform(low, high, blocks.shape[:-1]).astype(np.float16)[..., None].view(np.uint8)

    if kind == Type.Q4_K:  # d and dmin multiply 6-bit scales and minima, and 4-bit weights of mean 7.5
        blocks[..., 0:2] = halves(1e-4, 4e-4)
        blocks[..., 2:4] = halves(7e-4, 3e-3)
    elif kind == Type.Q6_K:  # d multiplies 8-bit scales and 6-bit weights around 0
        blocks[..., 208:210] = halves(1e-5, 6e-5)
    else:
        raise ValueError(kind)
    return blocks.reshape(*rest, columns // length * size)


def encode(values, kind):
    if kind in (Type.F32, Type.F16):
        return values.astype(np.float32 if kind == Type.F32 else np.float16)
    return gguf.quants.quantize(values, kind)


def tokenizer(writer, vocabulary):
    """Bytes, a few merges, Qwen's special tokens, and unused rows."""
    alphabet = byte_alphabet()
    tokens, types, merges = [alphabet[b] for b in range(256)], [1] * 256, []
    for left, right in ["th", "he", "in", "er", "an", "Ġt", "Ġa"]:
        merges.append(f"{left} {right}")
        tokens.append(left + right)
        types.append(1)
    tokens += ["Ġthe", "ing"]
    types += [1, 1]
    merges += ["Ġt he", "in g"]
    for text, kind in [("<|endoftext|>", 3), ("<|im_start|>", 3), ("<|im_end|>", 3), ("<think>", 4), ("</think>", 4)]:
        tokens.append(text)
        types.append(kind)
    end = tokens.index("<|endoftext|>")
    while len(tokens) < vocabulary:
        tokens.append(f"[PAD{len(tokens)}]")
        types.append(5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_bos_token_id(end)
    writer.add_pad_token_id(end)
    writer.add_add_bos_token(False)
    writer.add_chat_template(
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    )


def byte_alphabet():
    """GPT-2's printable character for each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    result, extra = {}, 0
    for byte in range(256):
        if byte in printable:
            result[byte] = chr(byte)
        else:
            result[byte] = chr(0x100 + extra)
            extra += 1
    return result


def write(path, shape, kind_of, seed=1, with_tokenizer=True):
    """Writes a model whose tensor `name` has the type `kind_of(name)`; norms and routers are F32."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "qwen3moe")
    writer.add_name("random-qwen3moe")
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_expert_feed_forward_length(shape.intermediate)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_expert_count(shape.experts)
    writer.add_expert_used_count(shape.used)
    writer.add_vocab_size(shape.vocabulary)
    if with_tokenizer:
        tokenizer(writer, shape.vocabulary)
    else:
        writer.add_tokenizer_model("no_vocab")

    def matrix(name, *dimensions, deviation=None):
        kind = kind_of(name)
        if kind in (Type.Q4_K, Type.Q6_K):
            data = random_blocks(rng, dimensions, kind)
        else:
            deviation = deviation or dimensions[-1] ** -0.5
            data = encode(rng.normal(0, deviation, dimensions).astype(np.float32), kind)
        writer.add_tensor(name, data, raw_dtype=kind)

    def vector(name, count):
        writer.add_tensor(name, rng.uniform(0.7, 1.3, count).astype(np.float32))

    hidden, wide, kv = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    # One direction for each expert; a token's embedding goes far along one of them.
    directions = np.linalg.qr(rng.normal(size=(hidden, shape.experts)))[0].T.astype(np.float32)
    if shape.wide_margins:
        kind = kind_of("token_embd.weight")
        embedding = rng.normal(0, 1, (shape.vocabulary, hidden)).astype(np.float32)
        embedding += 12 * directions[rng.integers(0, shape.experts, shape.vocabulary)]
        writer.add_tensor("token_embd.weight", encode(embedding, kind), raw_dtype=kind)
    else:
        matrix("token_embd.weight", shape.vocabulary, hidden, deviation=1.0)
    for layer in range(shape.layers):
        prefix = f"blk.{layer}."
        vector(prefix + "attn_norm.weight", hidden)
        matrix(prefix + "attn_q.weight", wide, hidden)
        matrix(prefix + "attn_k.weight", kv, hidden)
        matrix(prefix + "attn_v.weight", kv, hidden)
        matrix(prefix + "attn_output.weight", hidden, wide)
        vector(prefix + "attn_q_norm.weight", shape.head_dim)
        vector(prefix + "attn_k_norm.weight", shape.head_dim)
        vector(prefix + "ffn_norm.weight", hidden)
        router = rng.normal(0, hidden**-0.5, (shape.experts, hidden)).astype(np.float32)
        if shape.wide_margins:
            router = directions[rng.permutation(shape.experts)]
        writer.add_tensor(prefix + "ffn_gate_inp.weight", router)
        matrix(prefix + "ffn_gate_exps.weight", shape.experts, shape.intermediate, hidden)
        matrix(prefix + "ffn_up_exps.weight", shape.experts, shape.intermediate, hidden)
        matrix(prefix + "ffn_down_exps.weight", shape.experts, hidden, shape.intermediate)
    vector("output_norm.weight", hidden)
    if not shape.tied:
        matrix("output.weight", shape.vocabulary, hidden)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def mixed(name):
    """As Q4_K_M: half of the value and down projections, and the head, in Q6_K."""
    if name == "output.weight":
        return Type.Q6_K
    parts = name.split(".")
    if parts[0] == "blk" and parts[2] in ("attn_v", "ffn_down_exps") and int(parts[1]) % 2 == 0:
        return Type.Q6_K
    return Type.Q4_K


def kinds(name):
    """The types of tensors of a model `name`d by one of TYPES, or `mixed`."""
    return mixed if name == "mixed" else lambda _: TYPES[name]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output")
    parser.add_argument("--type", choices=[*TYPES, "mixed"], default="f32")
    parser.add_argument("--wide-margins", action="store_true")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tied", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    write(
        arguments.output,
        Shape(layers=arguments.layers, wide_margins=arguments.wide_margins, tied=arguments.tied),
        kinds(arguments.type), arguments.seed,
    )
