"""Writes test/fixtures/models/long-context.safetensors: logits of transformers for 8192 tokens, id (7919 i + 13) mod 384 at
position i, at every 431st position; the models' windows are 8.

    python test/peers/long_context.py
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

models = Path(__file__).parent.parent / "fixtures" / "models"
ids = torch.tensor([[(7919 * i + 13) % 384 for i in range(8192)]])
logits = {}
for name in ("gemma2-tiny", "gemma3-tiny"):
    model = AutoModelForCausalLM.from_pretrained(models / name, attn_implementation="eager")
    model.config.max_position_embeddings = 8192
    with torch.no_grad():
        logits[name] = model(ids).logits[0, 430::431].float().contiguous()
    print(name, logits[name].shape, logits[name].abs().max().item())
save_file(logits, models / "long-context.safetensors")
