"""Prints what transformers generates for the first prompts of a file: greedy, in float32 from the stored weights.

    python test/peers/greedy_completions.py MODEL_DIR ROWS.jsonl COUNT MAX_NEW_TOKENS

The list in test/distill/evaluate.test.ts was made with torch 2.15 and transformers 5.23:
    python test/peers/greedy_completions.py test/fixtures/arithmetic/teacher test/fixtures/arithmetic/test.jsonl 64 10
Needs torch and transformers; no part of the test suite.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(model_dir: str, rows: str, count: str, max_new_tokens: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    completions = []
    for line in Path(rows).read_text().splitlines()[: int(count)]:
        messages = [{"role": "user", "content": json.loads(line)["prompt"]}]
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        prompt = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        ids = model.generate(prompt, do_sample=False, max_new_tokens=int(max_new_tokens))[0, prompt.shape[1] :]
        completions.append(tokenizer.decode(ids, skip_special_tokens=True))
    print(json.dumps(completions))


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
