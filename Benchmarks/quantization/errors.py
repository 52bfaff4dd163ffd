"""Squared errors of quantized matrices: ours read from a plain GGUF file, llama.cpp's made by the library that its package brings."""

import ctypes
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize


def bits_per_weight(path: Path) -> float:
    """Over the matrices that are quantized."""
    tensors = [t for t in GGUFReader(path).tensors if is_quantized(t)]
    return 8 * sum(int(t.n_bytes) for t in tensors) / sum(int(t.n_elements) for t in tensors)


def is_quantized(tensor) -> bool:
    return tensor.tensor_type not in (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16)


def matrices(tensor) -> np.ndarray:
    """[experts or 1, rows, columns]"""
    values = dequantize(tensor.data, tensor.tensor_type)
    return values.reshape(-1, values.shape[-2], values.shape[-1])


class Importance:
    """What `sigma-eval imatrix` measured, by the names of plain GGUF tensors; each matrix's mean is 1."""

    def __init__(self, path: Path):
        self.means = {t.name: np.asarray(t.data, np.float64).reshape(-1, t.data.shape[-1]) for t in GGUFReader(path).tensors}

    def of(self, name: str) -> np.ndarray | None:
        """[experts or 1, columns]; None for the embedding."""
        if name == "output.weight":
            entry = "output_input"
        elif name.startswith("blk."):
            _, layer, part, *_ = name.split(".")
            entries = {
                "attn_q": "attn_input", "attn_k": "attn_input", "attn_v": "attn_input", "attn_output": "attn_output_input",
                "ffn_gate_exps": "ffn_experts_input", "ffn_up_exps": "ffn_experts_input", "ffn_down_exps": "ffn_experts_down_input",
                "ffn_gate": "ffn_input", "ffn_up": "ffn_input", "ffn_down": "ffn_down_input",
                "ffn_gate_shexp": "ffn_input", "ffn_up_shexp": "ffn_input", "ffn_down_shexp": "ffn_down_input",
            }
            entry = f"blk.{layer}.{entries[part]}"
        else:
            return None
        means = self.means[entry]
        return means / means.mean(1, keepdims=True)


class LlamaQuantizer:
    """ggml_quantize_chunk of the library in `llama-cpp-python`."""

    def __init__(self):
        import llama_cpp

        folder = Path(llama_cpp.__file__).parent / "lib"
        self.library = ctypes.CDLL(str(next(folder.glob("libggml-base.*"))))
        self.library.ggml_quantize_chunk.restype = ctypes.c_size_t
        floats = ctypes.POINTER(ctypes.c_float)
        self.library.ggml_quantize_chunk.argtypes = [ctypes.c_int, floats, ctypes.c_void_p] + 3 * [ctypes.c_int64] + [floats]

    def values(self, matrix: np.ndarray, kind: GGMLQuantizationType, importance: np.ndarray | None) -> np.ndarray:
        """What the matrix [rows, columns] becomes."""
        matrix = np.ascontiguousarray(matrix, np.float32)
        floats = ctypes.POINTER(ctypes.c_float)
        weights = None if importance is None else np.ascontiguousarray(importance, np.float32)
        blocks = np.zeros(matrix.nbytes, np.uint8)
        size = self.library.ggml_quantize_chunk(
            int(kind), matrix.ctypes.data_as(floats), blocks.ctypes.data, 0, matrix.shape[0], matrix.shape[1],
            None if weights is None else weights.ctypes.data_as(floats),
        )
        return dequantize(blocks[:size].reshape(matrix.shape[0], -1), kind)


def of_tensors(exact: Path, quantized: Path, matrix: Path, type_name: str, weighted: bool, uses_llama: bool) -> list[dict]:
    """Mean squared error of every matrix, and of its weighted form where there is an importance; llama.cpp's for the same type."""
    kind = GGMLQuantizationType[type_name.upper()]
    importance = Importance(matrix)
    llama = LlamaQuantizer() if uses_llama else None
    truth = {t.name: t for t in GGUFReader(exact).tensors}
    rows = []
    for tensor in GGUFReader(quantized).tensors:
        if tensor.tensor_type != kind:
            continue
        x, ours = matrices(truth[tensor.name]), matrices(tensor)
        columns = importance.of(tensor.name)
        given = columns if weighted else None
        theirs = None
        if llama:
            theirs = np.stack([llama.values(m, kind, None if given is None else given[i]) for i, m in enumerate(x)])
        scale = np.ones((len(x), x.shape[-1])) if columns is None else columns
        row = {"tensor": tensor.name, "power": float(np.mean(x.astype(np.float64) ** 2))}
        for who, values in (("ours", ours), ("llama", theirs)):
            if values is not None:
                square = (values.astype(np.float64) - x) ** 2
                row[f"{who}_mse"] = float(square.mean())
                row[f"{who}_weighted"] = float((square * scale[:, None, :]).mean())
        rows.append(row)
    return rows
