"""Writes test/fixtures/models/gemma2-tiny-reward: a small Gemma2ForSequenceClassification with random weights and, in
golden.safetensors, its logits for rows of token ids of three lengths.

    python test/peers/reward_model.py
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import Gemma2Config, Gemma2ForSequenceClassification

out = Path(__file__).parent.parent / "fixtures" / "models" / "gemma2-tiny-reward"
torch.manual_seed(0)
config = Gemma2Config(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    query_pre_attn_scalar=16,
    sliding_window=4,
    max_position_embeddings=64,
    num_labels=3,
    initializer_range=0.2,
    attn_implementation="eager",
)
model = Gemma2ForSequenceClassification(config).eval()
model.save_pretrained(out)
rows = [[2, *((7 * i + 11) % 60 + 3 for i in range(length))] for length in (1, 6, 19)]
with torch.no_grad():
    logits = torch.cat([model(torch.tensor([ids])).logits for ids in rows])
(out / "rows.json").write_text(json.dumps(rows))
save_file({"logits": logits}, out / "golden.safetensors")
print(logits)
