"""NF4 with double quantisation as bitsandbytes and transformers do it.

    python test/peers/bnb_nf4.py

writes test/fixtures/quantised/model.safetensors (matrices, their codes and their float32 values, by bitsandbytes), and
test/fixtures/models/gemma3-tiny-nf4 (gemma3-tiny in 4 bits, by transformers) with a golden.safetensors: tokens, the float32
logits of the model whose matrices are dequantised, and the values of one of these. Rows there are multiples of 64 long: in
others, where blocks go over the end of a row, bitsandbytes 0.50.2 has other values on a CPU than it quantised.
"""

from pathlib import Path

import bitsandbytes.functional as F
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

FIXTURES = Path(__file__).parent.parent / "fixtures"


def quantised(w):
    codes, state = F.quantize_4bit(w, quant_type="nf4", compress_statistics=True, blocksize=64)
    return {
        "values": w,
        "codes": codes.reshape(-1),
        "absmax": state.absmax,
        "nested_absmax": state.state2.absmax,
        "offset": state.offset.reshape(1),
        "dequantised": F.dequantize_4bit(codes, state),
    }


def matrices():
    torch.manual_seed(0)
    normal = (torch.randn(132, 128) * 0.02).bfloat16().float()
    normal[0, :64] = 0
    # Multiples of 1/64, every one of -1 to 1: whatever is a tie among them is one here.
    steps = ((torch.arange(64 * 8) % 129 - 64).float() / 64).reshape(8, 64)
    named = {"normal": normal, "steps": steps}
    return {f"{name}.{part}": t for name, w in named.items() for part, t in quantised(w).items()}


def model(source, folder):
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    AutoModelForCausalLM.from_pretrained(source, quantization_config=config, dtype=torch.float32).save_pretrained(folder)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).dequantize().float()
    ids = torch.tensor([[2, 17, 99, 301, 5, 5, 250, 44, 131, 7, 380, 12]])
    with torch.no_grad():
        logits = plain(ids).logits[0]
    weight = plain.model.layers[1].mlp.down_proj.weight.data
    save_file({"ids": ids.int(), "logits": logits, "down_proj": weight.clone()}, folder / "golden.safetensors")


(FIXTURES / "quantised").mkdir(exist_ok=True)
save_file(matrices(), FIXTURES / "quantised" / "model.safetensors")
model(FIXTURES / "models" / "gemma3-tiny", FIXTURES / "models" / "gemma3-tiny-nf4")
