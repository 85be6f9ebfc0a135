"""Rewards of prompts and completions as TRL's RLOO and GRPO trainers compute them, against `heddle score`: a reward model that
transformers writes, whose tokenizer and chat template are the arithmetic fixture's.

    python test/peers/reward_chat.py

Heddle must be built (`npm run build`). Needs torch, transformers and trl; no part of the test suite.
"""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl.data_utils import apply_chat_template

ROOT = Path(__file__).parents[2]
POLICY = ROOT / "test" / "fixtures" / "arithmetic" / "student"
ROWS = [("1+2=", "3"), ("(10*10)/100=", " 1\n"), ("7-9=", ""), ("12*12=", "144 or\n\n145"), ("5+6=", "eleven")]

torch.manual_seed(0)
model = AutoModelForSequenceClassification.from_pretrained(POLICY, num_labels=1, dtype=torch.float32, attn_implementation="eager").eval()
tokenizer = AutoTokenizer.from_pretrained(POLICY)
model.config.pad_token_id = tokenizer.pad_token_id

with tempfile.TemporaryDirectory() as folder:
    judge = Path(folder, "judge")
    model.save_pretrained(judge)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(POLICY / name, judge / name)

    chats = [[{"role": "user", "content": p}, {"role": "assistant", "content": c}] for p, c in ROWS]
    texts = [apply_chat_template({"messages": messages}, tokenizer)["text"] for messages in chats]
    inputs = tokenizer(text=texts, return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False)
    with torch.no_grad():
        expected = model(**inputs).logits[:, 0].tolist()

    data = Path(folder, "rows.jsonl")
    data.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in ROWS))
    command = [ROOT / "bin" / "heddle.js", "score", "--model", judge, "--data", data, "--out", "-"]
    out = subprocess.run(["node", *map(str, command)], check=True, capture_output=True, text=True).stdout
    rows = [json.loads(line) for line in out.splitlines()]

lengths = inputs["attention_mask"].sum(1).tolist()
for row, ids, length, reward in zip(rows, inputs["input_ids"].tolist(), lengths, expected, strict=True):
    assert row["ids"] == ids[:length], (row["ids"], ids[:length])
    print(f"{reward:9.5f}  {row['scores'][0]:9.5f}  {row['prompt']!r} {row['completion']!r}")
print("largest difference", max(abs(row["scores"][0] - reward) for row, reward in zip(rows, expected, strict=True)))
