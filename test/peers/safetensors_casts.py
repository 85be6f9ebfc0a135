"""Writes test/safetensors-ts/golden/casts.json: what PyTorch's casts (CPU) give, which test/safetensors-ts/convert.test.ts asks of ours.

    python test/peers/safetensors_casts.py > test/safetensors-ts/golden/casts.json

Many casts are kept as the SHA-256 of their bytes. Their inputs are the float32 with every upper half, and in turn each of
LOWER as lower half, without the NaNs: all 16-bit floats, what lies next to them, and halfway between two.
"""
import hashlib
import json
import sys
import types

import numpy as np
import torch

LOWER = [0x0000, 0x0001, 0x0FFF, 0x1000, 0x1001, 0x3000, 0x7FFF, 0x8000, 0x8001, 0xFFFF]
DTYPES = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}
INF, NAN = float("inf"), float("nan")
FEW = [0.0, -0.0, 1.0, -1.5, 0.1, 447, 448, 464, 465, 480, 500, -1e9, 240, 247.9, 248, 57344, 61439, 61440, 65519, 65520]
FEW += [1e-9, -1e-9, 2**-127, 2**-128, 3 * 2**-128, 2**-149, 1.5, 3.0, 2.0**127, 1.5 * 2.0**127, INF, -INF, NAN, -NAN]


def sha(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def swept() -> np.ndarray:
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    values = np.concatenate([upper | lower for lower in LOWER]).view(np.float32)
    return values[~np.isnan(values)]


def float4():
    """PyTorch's own conversions from and to float4_e2m1, one element a byte; its tensors of that dtype cannot be cast."""
    # They are among PyTorch's test helpers; what those import besides (test frameworks) need not be installed.
    helpers = types.ModuleType("helpers")
    helpers.__getattr__ = lambda name: None
    sys.modules["torch.testing._internal.common_utils"] = helpers
    import torch.testing._internal.common_quantized as quantized

    return quantized


few = torch.tensor(FEW, dtype=torch.float32)
sweep = torch.from_numpy(swept())
golden = {"torch": torch.__version__, "few": [str(x) for x in FEW], "encoded": {}, "encodedSweep": {}, "decoded": {}}
for name, dtype in DTYPES.items():
    width = dtype.itemsize
    raw = torch.uint8 if width == 1 else torch.int16
    one_by_one = torch.cat([x.reshape(1).to(dtype).view(raw) for x in few])
    assert torch.equal(one_by_one[:-2], few.to(dtype).view(raw)[:-2]), name
    golden["encoded"][name] = one_by_one.numpy().tobytes().hex()
    golden["encodedSweep"][name] = sha(sweep.to(dtype).view(raw).numpy())
    codes = torch.arange(1 << (8 * width), dtype=torch.int32)
    decoded = codes.to(torch.uint8 if width == 1 else torch.uint16).view(dtype).float().numpy()
    decoded[np.isnan(decoded)] = 0
    golden["decoded"][name] = sha(decoded)

q = float4()
finite = few[torch.isfinite(few)]
golden["encoded"]["F4"] = q._f32_to_floatx_unpacked(finite, 2, 1).numpy().tobytes().hex()
golden["encodedSweep"]["F4"] = sha(q._f32_to_floatx_unpacked(sweep[torch.isfinite(sweep)], 2, 1).numpy())
golden["decodedF4"] = q._floatx_unpacked_to_f32(torch.arange(16, dtype=torch.uint8), 2, 1).tolist()

# float64 to float16 is rounded once by NumPy; PyTorch goes by way of float32.
doubles = np.concatenate([swept().astype(np.float64) * (1 + step) for step in (0, 2**-40, -(2**-40))])
with np.errstate(over="ignore"):
    golden["float16FromFloat64"] = sha(doubles.astype(np.float16))

integers = [0, 1, 2**24 + 1, 2**53 + 1, 2**60 + 2**36, 2**60 + 2**36 + 1, 2**60 - 2**35 + 1, 2**63 - 1]
signed = integers + [-x for x in integers] + [-(2**63)]
golden["I64"] = {"values": [str(x) for x in signed]}
for name, dtype in (("float32", torch.float32), ("float64", torch.float64)):
    golden["I64"][name] = [float(x) for x in torch.tensor(signed, dtype=torch.int64).to(dtype)]
unsigned = integers + [2**63 + 2**39, 2**63 + 2**39 + 1, 2**64 - 1]
golden["U64"] = {"values": [str(x) for x in unsigned]}
for name, dtype in (("float32", np.float32), ("float64", np.float64)):
    golden["U64"][name] = [float(x) for x in np.array(unsigned, dtype=np.uint64).astype(dtype)]
print(json.dumps(golden, indent=1))
