"""Prints perplexity and bits per byte of a text under a model, in strided windows as in transformers' guide.

    python test/peers/strided_perplexity.py MODEL_DIR TEXT_FILE WINDOW STRIDE
    npx heddle score --model MODEL_DIR --ignore-chat-template --data ROWS.jsonl --out OUT.jsonl --summary --window WINDOW --stride STRIDE

where ROWS.jsonl holds one row, {"prompt": the text}. On a page of 214 tokens and Gemma 3 270M, windows 4096/2048, 64/32 and
100/7, mean log-probabilities differ by less than 1e-6 (torch 2.15, transformers 5.24).
Needs torch and transformers; no part of the test suite.
"""

import json
import math
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


@torch.no_grad()
def main(model_dir: str, text_file: str, window: int, stride: int) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
    text = Path(text_file).read_text()
    ids = AutoTokenizer.from_pretrained(model_dir)(text, return_tensors="pt").input_ids[0]
    nats, scored, begin = 0.0, 1, 0
    while scored < len(ids):
        end = min(begin + window, len(ids))
        logprobs = model(ids[None, begin:end]).logits[0].log_softmax(-1)
        tokens = torch.arange(scored, end)
        nats -= logprobs[tokens - begin - 1, ids[tokens]].double().sum().item()
        scored, begin = end, begin + stride
    tokens = len(ids) - 1
    result = {
        "tokens": tokens,
        "mean_logprob": -nats / tokens,
        "perplexity": math.exp(nats / tokens),
        "bits_per_byte": nats / math.log(2) / len(text.encode()),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
