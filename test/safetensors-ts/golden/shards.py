"""Writes shards.json beside it: how huggingface_hub cuts tensors into files, and the index as transformers writes it.

    python test/safetensors-ts/golden/shards.py
"""
import json
import os

import torch
from huggingface_hub import split_torch_state_dict_into_shards

names = ["z", "a", "10", "9", "\ue000", "\U0001f600", 'é"\\/\n\x7f', "__proto__", "A"]
cases = [
    ("all in one file", 100, [("a", 60), ("b", 40)]),
    ("a file is filled to the limit", 100, [("a", 60), ("b", 40), ("c", 1)]),
    ("the documentation's example", 10, [("a", 6), ("b", 6), ("c", 2), ("d", 6), ("e", 2), ("f", 2)]),
    ("larger than the limit, in the middle", 10, [("a", 4), ("b", 11), ("c", 6), ("d", 1)]),
    ("larger than the limit, alone", 10, [("a", 11)]),
    ("larger than the limit, first and last", 10, [("a", 11), ("b", 10), ("c", 12)]),
    ("nothing in some", 4, [("a", 0), ("b", 4), ("c", 0), ("d", 4), ("e", 0)]),
    ("names in the order of their code points", 5, [(name, 3) for name in names]),
]
out = []
for case, limit, tensors in cases:
    # Meta tensors have no storage: those without elements would be taken for one another.
    state = {name: torch.empty(size, dtype=torch.uint8, device="meta") for name, size in tensors}
    split = split_torch_state_dict_into_shards(state, filename_pattern="model{suffix}.safetensors", max_shard_size=limit)
    index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
    text = json.dumps(index, indent=2, sort_keys=True) + "\n" if split.is_sharded else None
    files = list(split.filename_to_tensors.items())
    out.append({"case": case, "limit": limit, "tensors": tensors, "files": files, "index": text})
with open(os.path.join(os.path.dirname(__file__), "shards.json"), "w") as file:
    file.write(json.dumps(out, indent=1) + "\n")
