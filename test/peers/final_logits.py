"""Compares `heddle score` with transformers: log-probabilities of the same tokens, and the tokens of the same prompts.

    python test/peers/final_logits.py MODEL_DIR [SCORES.jsonl]

SCORES.jsonl is what `heddle score` wrote; without it a few prompts are scored here (heddle must be built: `npx tsc -b`).
Both compute in float32 from the stored weights. Needs torch and transformers; no part of the test suite.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

HEDDLE = Path(__file__).parents[2] / "bin" / "heddle.js"
PROMPTS = ["12*(3+4)=", "Is 7 prime?", "Grüße, 世界 🙂!  two  spaces", "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20"]


def score_with_heddle(model_dir: str) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder, "rows.jsonl"), Path(folder, "scores.jsonl")
        data.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
        subprocess.run(["node", HEDDLE, "score", "--model", model_dir, "--data", data, "--out", out], check=True)
        return read_rows(out)


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def main(model_dir: str, scores: str | None = None) -> None:
    rows = read_rows(Path(scores)) if scores else score_with_heddle(model_dir)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(model_dir) if Path(model_dir, "tokenizer.json").exists() else None

    largest, tokens, other_ids = 0.0, 0, 0
    for row in rows:
        ids = torch.tensor([row["ids"]])
        with torch.no_grad():
            logprobs = torch.log_softmax(model(ids).logits[0].double(), -1)
        expected = logprobs[:-1].gather(1, ids[0, 1:, None])[:, 0]
        got = torch.tensor(row["logprobs"][1:], dtype=torch.float64)
        if len(got):
            largest = max(largest, (got - expected).abs().max().item())
        tokens += len(got)
        if tokenizer and tokenizer.chat_template and "prompt" in row and "completion" not in row:
            messages = [{"role": "user", "content": row["prompt"]}]
            text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            other_ids += tokenizer(text, add_special_tokens=False).input_ids != row["ids"]

    print(f"largest difference of ln p: {largest:.2e} over {tokens} tokens of {len(rows)} rows; rows with other ids: {other_ids}")
    if largest > 2e-4 or other_ids:
        sys.exit(1)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*sys.argv[1:])
