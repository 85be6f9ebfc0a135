"""Decodes with transformers what bench/decode.ts does: python test/peers/decode.py MODEL_DIR [BATCH] [DTYPE]."""

import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM

model_dir, batch, dtype = [*sys.argv[1:], "1", "float32"][:3] if len(sys.argv) == 2 else [*sys.argv[1:], "float32"][:3]
torch.set_num_threads(2)
B, T, N = int(batch), 16, 64
model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=getattr(torch, dtype)).eval()
ids = torch.tensor([[1000 + 37 * row + 11 * t for t in range(T)] for row in range(B)])


def decode() -> None:
    model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=N, min_new_tokens=N)


seconds = []
for run in range(4):
    begin = time.perf_counter()
    decode()
    seconds.append(time.perf_counter() - begin)
median = sorted(seconds[1:])[1]
name = f"transformers decode, batch {B}, {dtype}"
print(json.dumps({"name": name, "median_s": median, "tokens_per_second": round(B * N / median)}), flush=True)
