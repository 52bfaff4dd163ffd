"""Blocks of ggml's quantized types with the values that the gguf package gives them, for the tests.

Writes Tests/Fixtures/quantization/<type>.blocks and .values (little-endian fp32). Blocks are random bits, so that every quant and
scale occurs; the fp16 factors are finite: ordinary ones of both signs, subnormals, zeros and the largest.
"""

import pathlib

import numpy as np
from gguf import GGMLQuantizationType
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "Tests" / "Fixtures" / "quantization"
# Byte offsets of a block's fp16 factors.
FACTORS = {
    "Q8_0": [0], "Q4_0": [0], "Q4_K": [0, 2], "Q6_K": [208], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108],
    "Q5_K": [0, 2], "IQ4_NL": [0], "IQ4_XS": [0], "MXFP4": [],
}  # fmt: skip
# The largest exponent of MXFP4 whose values are finite.
LARGEST_EXPONENT = 252
ROWS, COLUMNS = 16, 256


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    random = np.random.default_rng(20240501)
    for name, offsets in FACTORS.items():
        kind = GGMLQuantizationType[name]
        length, size = GGML_QUANT_SIZES[kind]
        blocks = random.integers(0, 256, (ROWS * COLUMNS // length, size), dtype=np.uint8)
        for offset in offsets:
            factors = (random.standard_normal(len(blocks)) * 0.01).astype(np.float16)
            special = np.array([0.0, -0.0, 6e-8, -6e-8, 3e-5, 65504.0, -65504.0, 1.0], np.float16)
            factors[: len(special)] = special
            random.shuffle(factors)
            blocks[:, offset : offset + 2] = factors.view(np.uint8).reshape(-1, 2)
        if name == "MXFP4":
            blocks[:, 0] = np.minimum(blocks[:, 0], LARGEST_EXPONENT)
            blocks[:4, 0] = [0, 1, 2, LARGEST_EXPONENT]
        values = dequantize(blocks.reshape(ROWS, -1), kind).astype("<f4")
        assert np.isfinite(values).all() and values.shape == (ROWS, COLUMNS)
        (FOLDER / f"{name.lower()}.blocks").write_bytes(blocks.tobytes())
        (FOLDER / f"{name.lower()}.values").write_bytes(values.tobytes())


if __name__ == "__main__":
    main()
