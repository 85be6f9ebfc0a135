"""Reads a folder that writeCheckpoint wrote with Python's safetensors: its index fits the files, and each file is, byte for byte,
what Python writes of the same tensors and metadata.

    python test/peers/safetensors_read.py FOLDER
"""
import ctypes
import json
import os
import sys

import safetensors

# What `serialize` calls the dtypes: raw bytes of any of them go through it, also of those that NumPy does not have.
NAMES = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu", "BF16": "bfloat16", "C64": "complex64"}
NAMES |= {"F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz", "F4": "float4_e2m1fn_x2", "BOOL": "bool"}
KINDS = {"F": "float", "I": "int", "U": "uint"}


def rewritten(blob: bytes) -> tuple[bytes, list[str]]:
    """The file as Python writes it, and the names of its tensors."""
    length = int.from_bytes(blob[:8], "little")
    metadata = json.loads(blob[8 : 8 + length]).get("__metadata__")
    assert metadata is None or len(metadata) < 2, "Python shuffles the keys of metadata"
    tensors, alive = {}, []
    for name, tensor in safetensors.deserialize(blob):
        dtype, shape = tensor["dtype"], list(tensor["shape"])
        if dtype == "F4":  # Python counts pairs when it writes
            shape = [*shape[:-1], shape[-1] // 2]
        numpy_name = NAMES.get(dtype) or KINDS[dtype[0]] + dtype[1:]
        data = ctypes.create_string_buffer(bytes(tensor["data"]), len(tensor["data"]))
        alive.append(data)
        tensors[name] = safetensors.TensorSpec(
            dtype=numpy_name, shape=shape, data_ptr=ctypes.addressof(data), data_len=len(tensor["data"])
        )
    return safetensors.serialize(tensors, metadata), list(tensors)


folder = sys.argv[1]
files = sorted(name for name in os.listdir(folder) if name.endswith(".safetensors"))
placed = {}
for name in files:
    with open(os.path.join(folder, name), "rb") as file:
        blob = file.read()
    again, names = rewritten(blob)
    assert again == blob, f"{name}: {len(again)} bytes by Python, {len(blob)} bytes found, or others"
    placed |= {tensor: name for tensor in names}
    print(f"{name}: {len(blob)} bytes, {len(names)} tensors, the same as Python writes")

index = os.path.join(folder, "model.safetensors.index.json")
if os.path.exists(index):
    with open(index) as file:
        text = file.read()
    found = json.loads(text)
    assert found["weight_map"] == placed, "the index maps tensors to other files"
    assert text == json.dumps(found, indent=2, sort_keys=True) + "\n", "the index is not as transformers writes it"
    print(f"{os.path.basename(index)}: {len(placed)} tensors, {found['metadata']['total_size']} bytes")
