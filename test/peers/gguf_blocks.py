"""Writes test/fixtures/convert/blocks.safetensors: random blocks of every quantised format and what gguf-py makes of them.

    python test/peers/gguf_blocks.py OUT

Needs gguf, numpy and safetensors. Every bit of a block is random, but for its float16 scales, which are finite.
"""

import sys

import gguf
import numpy as np
from safetensors.numpy import save_file

SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
BLOCKS = 3

random = np.random.default_rng(6)
tensors = {}
for name, places in SCALES.items():
    kind = gguf.GGMLQuantizationType[name]
    _, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
    for at in places:
        blocks[:, at : at + 2] = random.normal(0, 0.02, (BLOCKS, 1)).astype(np.float16).view(np.uint8)
    tensors[f"{name}.blocks"] = blocks
    tensors[f"{name}.values"] = gguf.quants.dequantize(blocks, kind).astype(np.float32)
save_file(tensors, sys.argv[1])
