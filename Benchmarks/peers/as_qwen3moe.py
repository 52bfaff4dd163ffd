"""Makes a qwen3moe GGUF, which llama.cpp runs, of a native model or a plain `sigma` GGUF of the same shape: the same matrices, byte by byte.

Both compute the same products. Only the router's activation differs (softmax with normalised weights instead of sigmoid), so that the texts
differ where there is more than chance, and the work does not. Norms, routers and biases become F32, as llama.cpp wants them; selection
biases and the tokenizer are left out.

    python as_qwen3moe.py model.gguf qwen3moe.gguf [--sigma-convert PATH]
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def write(source, target):
    reader = gguf.GGUFReader(source)

    def value(key, default=None):
        return reader.fields[f"sigma.{key}"].contents() if f"sigma.{key}" in reader.fields else default

    used = set(value("expert_used_count_per_layer", []))
    if len(used) != 1 or 0 in used:
        sys.exit(f"{source}: qwen3moe has the same number of experts in every layer; here: {sorted(used)}")
    if value("expert_shared_count", 0) or not value("attention.qk_norm", False) or value("rope.scaling.type", "none") != "none":
        sys.exit(f"{source}: qwen3moe has q and k norms, neither shared experts nor scaled positions")
    partial = Path(f"{target}.partial")
    writer = gguf.GGUFWriter(partial, "qwen3moe")
    writer.add_name(reader.fields["general.name"].contents())
    writer.add_block_count(value("block_count"))
    writer.add_context_length(value("context_length"))
    writer.add_embedding_length(value("embedding_length"))
    # Of dense layers, which there are none of.
    writer.add_feed_forward_length(value("expert_feed_forward_length"))
    writer.add_expert_feed_forward_length(value("expert_feed_forward_length"))
    writer.add_head_count(value("attention.head_count"))
    writer.add_head_count_kv(value("attention.head_count_kv"))
    writer.add_key_length(value("attention.key_length"))
    writer.add_value_length(value("attention.value_length"))
    writer.add_rope_freq_base(value("rope.freq_base"))
    writer.add_layer_norm_rms_eps(value("attention.layer_norm_rms_epsilon"))
    writer.add_expert_count(value("expert_count"))
    writer.add_expert_used_count(used.pop())
    writer.add_vocab_size(value("vocab_size"))
    writer.add_tokenizer_model("no_vocab")
    for tensor in reader.tensors:
        if tensor.name.endswith(".bias"):
            continue
        small = len(tensor.shape) == 1 or tensor.name.endswith("ffn_gate_inp.weight")
        if small:
            shape = tuple(int(n) for n in reversed(tensor.shape))
            data = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(shape)
            writer.add_tensor(tensor.name, data)
        else:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(target)


def make(source, target, convert):
    """`source`: native or plain. The plain file between them is removed again."""
    fields = gguf.GGUFReader(source).fields
    if "sigma.format_version" not in fields:
        return write(source, target)
    with tempfile.TemporaryDirectory(dir=Path(target).parent) as folder:
        plain = Path(folder) / "plain.gguf"
        subprocess.run([convert, source, plain, "--plain-gguf"], check=True)
        write(plain, target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--sigma-convert", default=str(ROOT / ".build/release/sigma-convert"))
    arguments = parser.parse_args()
    make(arguments.source, arguments.target, arguments.sigma_convert)
