"""8 bits (LLM.int8) as bitsandbytes and transformers do it.

    python test/peers/bnb_int8.py

writes test/fixtures/models/gemma3-tiny-int8 (gemma3-tiny in 8 bits, by transformers) with a golden.safetensors: tokens, the
float32 logits of the model whose matrices are dequantised, and the values of one of these.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

FIXTURES = Path(__file__).parent.parent / "fixtures" / "models"
folder = FIXTURES / "gemma3-tiny-int8"

config = BitsAndBytesConfig(load_in_8bit=True)
source = FIXTURES / "gemma3-tiny"
model = AutoModelForCausalLM.from_pretrained(source, quantization_config=config, dtype=torch.float32, device_map="cpu")
model.save_pretrained(folder)

again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map="cpu")
for name, module in again.named_modules():
    if "Linear8bitLt" in type(module).__name__:
        weight = module.weight
        values = weight.data.float() * (weight.SCB.float() / 127)[:, None]
        plain = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        plain.weight.data = values
        again.set_submodule(name, plain)
ids = torch.tensor([[2, 17, 99, 301, 5, 5, 250, 44, 131, 7, 380, 12]])
with torch.no_grad():
    logits = again(ids).logits[0]
weight = again.model.layers[1].mlp.down_proj.weight.data
save_file({"ids": ids.int(), "logits": logits, "down_proj": weight.clone()}, folder / "golden.safetensors")
