"""Checks our files with the `gguf` package, both directions.

For every type: a random qwen3moe GGUF is imported and exported again; all tensors must have the same types and the same bytes. Our native
file must be listed. A checkpoint, converted, then exported, must dequantize to what the type makes of its weights; and what our quantizers
write must have the same values for `gguf` and for us.

    python check_gguf.py [--sigma-convert PATH]
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

import qwen3moe_gguf

ROOT = Path(__file__).resolve().parents[2]


def convert(binary, *arguments):
    result = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{arguments}: {result.stderr}")
    return result.stderr


def tensors(path):
    return {t.name: t for t in gguf.GGUFReader(path).tensors}


def field(reader, key):
    return reader.fields[key].contents() if key in reader.fields else None


def check_import_and_export(binary, folder, kind):
    source, native, plain = (folder / f"{kind}-{name}.gguf" for name in ("source", "native", "plain"))
    qwen3moe_gguf.write(source, qwen3moe_gguf.Shape(layers=2, tied=kind == "q4_0"), qwen3moe_gguf.kinds(kind, layers=2))
    convert(binary, source, native)
    note = convert(binary, native, plain, "--plain-gguf")
    assert "qwen3moe" in note, note
    listed = gguf.GGUFReader(native)
    assert field(listed, "general.architecture") == "sigma" and len(listed.tensors) > 10

    before, after = tensors(source), tensors(plain)
    assert before.keys() == after.keys(), before.keys() ^ after.keys()
    for name, tensor in before.items():
        other = after[name]
        assert tensor.tensor_type == other.tensor_type, (name, tensor.tensor_type, other.tensor_type)
        assert list(tensor.shape) == list(other.shape), name
        assert np.array_equal(tensor.data.view(np.uint8), other.data.view(np.uint8)), f"{kind}: {name}: other bytes"
        a, b = (gguf.quants.dequantize(t.data, t.tensor_type) for t in (tensor, other))
        assert np.array_equal(a, b), f"{kind}: {name}: other values"

    first, last = gguf.GGUFReader(source), gguf.GGUFReader(plain)
    same = ["model", "pre", "token_type", "merges", "bos_token_id", "eos_token_id", "add_bos_token"]
    for key in ["tokenizer.ggml." + key for key in same]:
        assert field(first, key) == field(last, key), key
    types = field(first, "tokenizer.ggml.token_type")
    texts = zip(types, field(first, "tokenizer.ggml.tokens"), field(last, "tokenizer.ggml.tokens"))
    assert all(a == b for kind, a, b in texts if kind != 5), "tokens"
    for key, value in first.fields.items():
        if key.startswith("qwen3moe."):
            assert value.contents() == field(last, key), key
    # The plain file is a source again.
    again = folder / f"{kind}-again.gguf"
    convert(binary, plain, again)
    assert native.read_bytes() == again.read_bytes(), f"{kind}: not the same native file"
    print(f"{kind}: {len(before)} tensors, bytes and values equal both ways")


def check_conversion(binary, folder, checkpoint, kind):
    """Our conversion of float weights, seen by `gguf`: exact for float types; the squared error of Q8_0 is at most that of `gguf`'s own blocks."""
    native, plain = folder / "native.gguf", folder / "plain.gguf"
    convert(binary, checkpoint, native, "--type", kind)
    note = convert(binary, native, plain, "--plain-gguf")
    exact = folder / "exact.gguf"
    convert(binary, checkpoint, exact, "--type", "f32", "--plain-gguf")
    reference = tensors(exact)
    worst = 0.0
    for name, tensor in tensors(plain).items():
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(-1)
        original = gguf.quants.dequantize(reference[name].data, reference[name].tensor_type).reshape(-1)
        if tensor.tensor_type in (Type.F32, Type.F16, Type.BF16):
            rounded = gguf.quants.dequantize(
                qwen3moe_gguf.encode(original.reshape(1, -1), tensor.tensor_type), tensor.tensor_type)
            assert np.array_equal(values, rounded.reshape(-1)), f"{checkpoint.name} {kind}: {name}"
        else:
            if tensor.tensor_type == Type.Q8_0:
                plain = gguf.quants.dequantize(gguf.quants.quantize(original.reshape(-1, 32), Type.Q8_0), Type.Q8_0).reshape(-1)
                squares = [float(((found - original).astype(np.float64) ** 2).sum()) for found in (values, plain)]
                assert squares[0] <= squares[1], f"{checkpoint.name}: {name}: {squares[0]} is more than {squares[1]}, the error of gguf's blocks"
            error = np.abs(values - original).reshape(-1, 32).max(1)
            scale = np.abs(original).reshape(-1, 32).max(1)
            worst = max(worst, float((error / np.maximum(scale, 1e-30)).max()))
    print(f"{checkpoint.name} {kind}: {note.splitlines()[0].split(': ')[-1]}, largest error {worst:.4f} of a block's maximum")


def check_quantizer(binary, folder, kind):
    """The demo model in a quantized type: `gguf` gives our plain rows, bit for bit, the values that we give our own file."""
    checkpoint = ROOT / "Models" / "demo" / "checkpoint"
    native, wide, plain, direct = (folder / f"quantized-{name}.gguf" for name in ("native", "wide", "plain", "direct"))
    options = ["--type", kind, "--output-type", kind]
    convert(binary, checkpoint, native, *options)
    convert(binary, native, wide, "--type", "f32", "--plain-gguf")
    convert(binary, native, plain, "--plain-gguf")
    convert(binary, checkpoint, direct, *options, "--plain-gguf")
    reference, rows, count = tensors(wide), tensors(direct), 0
    for name, tensor in tensors(plain).items():
        assert np.array_equal(tensor.data.view(np.uint8), rows[name].data.view(np.uint8)), f"{kind}: {name}: other rows from a native file"
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        own = gguf.quants.dequantize(reference[name].data, reference[name].tensor_type)
        assert np.array_equal(values.reshape(-1).view(np.uint32), own.reshape(-1).view(np.uint32)), f"{kind}: {name}: other values"
        count += tensor.tensor_type == Type[kind.upper()]
    assert count > 10
    print(f"{kind} by our quantizer: {count} tensors, the same values")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sigma-convert", default=str(ROOT / ".build/release/sigma-convert"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in [*qwen3moe_gguf.TYPES, *qwen3moe_gguf.MIXES]:
            check_import_and_export(arguments.sigma_convert, folder, kind)
        for checkpoint in ["qwen3moe", "sigma-top1", "sigma-shared-experts", "sigma-dense-layers", "sigma-tied"]:
            for kind in ["f32", "bf16", "f16", "q8_0"]:
                check_conversion(
                    arguments.sigma_convert, folder, ROOT / "Tests/Fixtures/reference" / checkpoint, kind)
        for kind in ["q8_0", "q6_k", "q5_k", "q4_k", "q4_0", "q3_k"]:
            check_quantizer(arguments.sigma_convert, folder, kind)
