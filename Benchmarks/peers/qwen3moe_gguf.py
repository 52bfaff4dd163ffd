"""Random Qwen3-MoE models as GGUF files: weights, metadata and tokenizer as llama.cpp's converter writes them.

Matrices are written in one type, or mixed as the files that people download are. What is quantized is made of random bits with sane scales:
every such block is valid, and no quantizer is needed.

    python qwen3moe_gguf.py small.gguf --type q5_k
    python qwen3moe_gguf.py large.gguf --type Q4_K_M --shape qwen3-30b-a3b

The second has the shape of Qwen3-30B-A3B and 18.6 GB. It is written tensor by tensor, so the memory doesn't grow with it, and is refused where
the disk has no room. A native file of it takes as much again.
"""

import argparse
import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

TYPES = {
    "f32": Type.F32, "f16": Type.F16, "bf16": Type.BF16, "q8_0": Type.Q8_0, "q4_0": Type.Q4_0,
    "q4_k": Type.Q4_K, "q6_k": Type.Q6_K, "q4_1": Type.Q4_1, "q5_0": Type.Q5_0, "q5_1": Type.Q5_1, "q5_k": Type.Q5_K, "q3_k": Type.Q3_K,
    "q2_k": Type.Q2_K, "iq4_nl": Type.IQ4_NL, "iq4_xs": Type.IQ4_XS, "mxfp4": Type.MXFP4,
}  # fmt: skip

# Where a block has its fp16 factors, and what each is as a multiple of the first for values whose mean is zero. Q2_K: d multiplies 4-bit scales and
# 2-bit weights of mean 1.5, dmin 4-bit minima; and so on.
FACTORS = {
    Type.Q8_0: [(0, 1)], Type.Q4_0: [(0, 1)], Type.Q5_0: [(0, 1)], Type.IQ4_NL: [(0, 1)], Type.IQ4_XS: [(0, 1)], Type.Q3_K: [(108, 1)],
    Type.Q6_K: [(208, 1)], Type.Q4_1: [(0, 1), (2, -7.5)], Type.Q5_1: [(0, 1), (2, -15.5)], Type.Q2_K: [(80, 1), (82, 1.5)],
    Type.Q4_K: [(0, 1), (2, 7.5)], Type.Q5_K: [(0, 1), (2, 15.5)],
}  # fmt: skip
# Types whose blocks are made of random bits, not of values.
RANDOM_BITS = {kind for kind in TYPES.values() if kind not in (Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0)}


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


def random_blocks(rng, shape, kind, deviation=0.05):
    """Bytes [..., row bytes] of random blocks whose weights have about this deviation. What they stand for is in their bits."""
    *rest, columns = shape
    length, size = gguf.GGML_QUANT_SIZES[kind]
    count = int(np.prod(rest)) * columns // length
    blocks = np.frombuffer(bytearray(rng.bytes(count * size)), np.uint8).reshape(count, size)
    if kind == Type.MXFP4:  # a power of two multiplies 0, 0.5, 1, 1.5, 2, 3, 4 and 6 of both signs
        blocks[:, 0] = round(127 + np.log2(deviation / unit_deviation(kind)))
    else:
        factor = rng.uniform(0.5, 1.5, count) * deviation / unit_deviation(kind)
        for offset, multiple in FACTORS[kind]:
            blocks[:, offset : offset + 2] = (factor * multiple).astype(np.float16)[:, None].view(np.uint8)
    return blocks.reshape(*rest, columns // length * size)


def unit_deviation(kind, known={}):
    """Of the weights of random blocks whose factor is 1."""
    if kind not in known:
        length, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = np.random.default_rng(1).integers(0, 256, (4096, size), dtype=np.uint8)
        if kind == Type.MXFP4:
            blocks[:, 0] = 127
        for offset, multiple in FACTORS.get(kind, []):
            blocks[:, offset : offset + 2] = np.array([multiple], np.float16).view(np.uint8)
        known[kind] = float(gguf.quants.dequantize(blocks.reshape(64, -1), kind).std())
    return known[kind]


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


def row_bytes(columns, kind):
    length, size = gguf.GGML_QUANT_SIZES[kind]
    return columns // length * size


class Pending:
    """A writer's tensors, in order: written at once, or described first and made one at a time when the file is written."""

    def __init__(self, writer, streams):
        self.writer, self.streams, self.makers = writer, streams, []

    def add(self, name, dimensions, kind, make):
        if not self.streams:
            self.writer.add_tensor(name, make(), raw_dtype=kind)
            return
        stored = (*dimensions[:-1], row_bytes(dimensions[-1], kind))
        if kind in (Type.F32, Type.F16, Type.BF16):
            self.writer.add_tensor_info(name, dimensions, np.dtype(np.float16 if kind == Type.F16 else np.float32), int(np.prod(stored)), kind)
        else:
            self.writer.add_tensor_info(name, stored, np.dtype(np.uint8), int(np.prod(stored)), kind)
        self.makers.append(make)

    def finish(self):
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        if self.streams:
            self.writer.write_ti_data_to_file()
            file = self.writer.fout[0]
            for make in self.makers:
                self.writer.write_tensor_data(make())
                # What was written need not stay in memory: it would push out what others use.
                file.flush()
                os.fdatasync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        else:
            self.writer.write_tensors_to_file()
        self.writer.close()


def write(path, shape, kind_of, seed=1, with_tokenizer=True, streams=False):
    """Writes a model whose tensor `name` has the type `kind_of(name)`; norms and routers are F32. `streams`: with the memory of one tensor."""
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

    pending = Pending(writer, streams)

    def matrix(name, *dimensions, deviation=None):
        kind = kind_of(name)
        deviation = deviation or dimensions[-1] ** -0.5

        def make():
            if kind in RANDOM_BITS or streams and kind in FACTORS:
                return random_blocks(rng, dimensions, kind, deviation)
            return encode(rng.normal(0, deviation, dimensions).astype(np.float32), kind)

        pending.add(name, dimensions, kind, make)

    def vector(name, count):
        pending.add(name, (count,), Type.F32, lambda: rng.uniform(0.7, 1.3, count).astype(np.float32))

    hidden, wide, kv = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    # One direction for each expert; a token's embedding goes far along one of them.
    directions = np.linalg.qr(rng.normal(size=(hidden, shape.experts)))[0].T.astype(np.float32)

    def router():
        values = rng.normal(0, hidden**-0.5, (shape.experts, hidden)).astype(np.float32)
        return directions[rng.permutation(shape.experts)] if shape.wide_margins else values

    if shape.wide_margins:
        kind = kind_of("token_embd.weight")
        embedding = rng.normal(0, 1, (shape.vocabulary, hidden)).astype(np.float32)
        embedding += 12 * directions[rng.integers(0, shape.experts, shape.vocabulary)]
        pending.add("token_embd.weight", embedding.shape, kind, lambda: encode(embedding, kind))
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
        pending.add(prefix + "ffn_gate_inp.weight", (shape.experts, hidden), Type.F32, router)
        matrix(prefix + "ffn_gate_exps.weight", shape.experts, shape.intermediate, hidden)
        matrix(prefix + "ffn_up_exps.weight", shape.experts, shape.intermediate, hidden)
        matrix(prefix + "ffn_down_exps.weight", shape.experts, hidden, shape.intermediate)
    vector("output_norm.weight", hidden)
    if not shape.tied:
        matrix("output.weight", shape.vocabulary, hidden)
    pending.finish()


def more_bits(layer, count):
    """Layers that llama.cpp's quantizer gives more bits in its M mixes: the first and the last eighth, and every third between."""
    return layer < count // 8 or layer >= 7 * count // 8 or (layer - count // 8) % 3 == 2


def mix(kind, layers):
    """The types that llama.cpp's quantizer gives the tensors of a qwen3moe model, for a file of the kind that its name says (without importances)."""

    def type_of(name):
        if name == "output.weight":
            return Type.Q6_K
        base = {"Q4_K_M": Type.Q4_K, "Q3_K_M": Type.Q3_K, "Q2_K": Type.Q2_K, "IQ4_XS": Type.IQ4_XS}[kind]
        if not name.startswith("blk."):
            return base
        _, layer, part, _ = name.split(".")
        layer = int(layer)
        if kind == "Q4_K_M":
            return Type.Q6_K if part in ("attn_v", "ffn_down_exps") and more_bits(layer, layers) else base
        if kind == "Q3_K_M":
            first = {"attn_v": 2, "ffn_down_exps": layers // 16}.get(part, 0)
            return Type.Q5_K if layer < first else Type.Q4_K if part in ("attn_v", "ffn_down_exps", "attn_output") else base
        if kind == "Q2_K":
            return {"attn_v": Type.Q4_K, "ffn_down_exps": Type.Q3_K, "attn_output": Type.Q3_K}.get(part, base)
        return Type.Q5_K if part == "attn_v" or part == "ffn_down_exps" and layer < layers // 8 else base

    return type_of


MIXES = ["Q4_K_M", "Q3_K_M", "Q2_K", "IQ4_XS"]
SHAPES = {
    "small": Shape(),
    "qwen3-30b-a3b": Shape(
        layers=48, hidden=2048, heads=32, kv_heads=4, head_dim=128, experts=128, used=8, intermediate=768, vocabulary=151936, context=40960,
    ),
}  # fmt: skip


def kinds(name, layers=4):
    """The types of tensors of a model `name`d by one of TYPES or MIXES."""
    return mix(name, layers) if name in MIXES else lambda _: TYPES[name]


def size(shape, kind_of):
    """Bytes of the matrices, about those of the file."""
    wide, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    outer = ["token_embd.weight"] if shape.tied else ["token_embd.weight", "output.weight"]
    total = sum(shape.vocabulary * row_bytes(shape.hidden, kind_of(name)) for name in outer)
    for layer in range(shape.layers):
        expert = shape.experts * shape.intermediate
        for part, rows, columns in [
            ("attn_q", wide, shape.hidden), ("attn_k", kv, shape.hidden), ("attn_v", kv, shape.hidden), ("attn_output", shape.hidden, wide),
            ("ffn_gate_exps", expert, shape.hidden), ("ffn_up_exps", expert, shape.hidden),
            ("ffn_down_exps", shape.experts * shape.hidden, shape.intermediate),
        ]:  # fmt: skip
            total += rows * row_bytes(columns, kind_of(f"blk.{layer}.{part}.weight"))
    return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--type", choices=[*TYPES, *MIXES], default="f32", help="one type for all matrices, or a mix as in files named so")
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--wide-margins", action="store_true")
    parser.add_argument("--layers", type=int, help="instead of the shape's")
    parser.add_argument("--tied", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    shape = replace(SHAPES[arguments.shape], wide_margins=arguments.wide_margins, tied=arguments.tied)
    if arguments.layers:
        shape.layers = arguments.layers
    kind_of = kinds(arguments.type, shape.layers)
    arguments.output.unlink(missing_ok=True)
    expected, free = size(shape, kind_of), shutil.disk_usage(arguments.output.parent).free
    if expected + (1 << 30) > free:
        sys.exit(f"{arguments.output}: about {expected / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free")
    # Of vocabularies as large as a real model's a tokenizer of made-up tokens would be no help.
    partial = Path(f"{arguments.output}.partial")
    write(partial, shape, kind_of, arguments.seed, with_tokenizer=shape.vocabulary < 1000, streams=arguments.shape != "small")
    partial.replace(arguments.output)
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1e9:.2f} GB")
