"""Adapters both ways: heddle's loaded by peft, peft's loaded by heddle. Prints the worst difference of logits.

    python test/peers/peft_round_trip.py      needs torch, transformers, peft, and heddle built (npm run build)

Trains with `heddle sft` on a fixture, all kinds of settings; loads the adapter with PeftModel.from_pretrained; compares
ln p of every token with `heddle score`. Then the reverse, with adapters that peft makes, trains and saves. Float32.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).resolve().parents[2]
ARITHMETIC = ROOT / "test/fixtures/arithmetic"
BASE = ARITHMETIC / "student"
GEMMA3 = ROOT / "test/fixtures/models/gemma3-tiny"
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def heddle(*args, cwd):
    subprocess.run(["node", ROOT / "bin/heddle.js", *map(str, args)], cwd=cwd, check=True, capture_output=True)


def base(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def rows(vocabulary):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(2, vocabulary, (24,), generator=generator).tolist() for _ in range(4)]


def difference(folder, adapter, model, work):
    """The largest difference of ln p of any token, ours and theirs."""
    ids = rows(model.config.vocab_size)
    (work / "rows.jsonl").write_text("".join(json.dumps({"ids": row}) + "\n" for row in ids))
    heddle("score", "--model", folder, "--adapter", adapter, "--data", "rows.jsonl", "--out", "scores.jsonl", cwd=work)
    ours = [json.loads(line)["logprobs"][1:] for line in (work / "scores.jsonl").read_text().splitlines()]
    with torch.no_grad():
        logits = model(torch.tensor(ids)).logits
    theirs = torch.log_softmax(logits[:, :-1], -1).gather(-1, torch.tensor(ids)[:, 1:, None])[..., 0]
    return (torch.tensor(ours) - theirs).abs().max().item(), logits


def from_heddle(work, name, lora):
    config = {
        "model": str(BASE), "train_data": "train.jsonl", "max_new_tokens": 4, "lora": lora,
        "sft": {"steps": 5, "batch_size": 4, "learning_rate": 1e-2},
    }
    lines = (ARITHMETIC / "train.jsonl").read_text().splitlines()[:16]
    data = [{**json.loads(line), "completion": json.loads(line)["answer"]} for line in lines]
    (work / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
    (work / f"{name}.yaml").write_text(json.dumps(config))
    heddle("sft", f"{name}.yaml", cwd=work)
    adapter = work / "runs" / name / "sft"
    model = PeftModel.from_pretrained(base(BASE), adapter).eval()
    worst, logits = difference(BASE, adapter, model, work)
    with torch.no_grad():
        ids = torch.tensor(rows(model.config.vocab_size))
        moved = (logits - base(BASE).eval()(ids).logits).abs().max().item()
    return worst, moved


def from_peft(work, name, folder, settings):
    torch.manual_seed(1)
    model = get_peft_model(base(folder), LoraConfig(task_type="CAUSAL_LM", **settings))
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    ids = torch.tensor(rows(model.config.vocab_size))
    for _ in range(5):
        model(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    adapter = work / f"peft-{name}"
    model.save_pretrained(adapter)
    return difference(folder, adapter, model.eval(), work)[0]


def main():
    worst = 0.0
    heddles = {
        "all": {"r": 16, "lora_alpha": 32},
        "dropout": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "target_modules": ["q_proj", "v_proj"]},
        "rslora": {"r": 8, "lora_alpha": 16, "use_rslora": True},
        "embedding": {"r": 8, "target_modules": ["self_attn.o_proj"], "modules_to_save": ["embed_tokens", "post_attention_layernorm"]},
    }
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name, lora in heddles.items():
            d, moved = from_heddle(work, name, lora)
            print(f"heddle -> peft   {name:10} {d:.1e}   (the adapter moves logits by {moved:.1f})", flush=True)
            worst = max(worst, d)
        pefts = {
            "all": (BASE, dict(r=16, lora_alpha=32, target_modules="all-linear")),
            "gemma3": (GEMMA3, dict(r=8, lora_alpha=16, target_modules=TARGETS, init_lora_weights=False)),
            "patterns": (BASE, dict(r=8, target_modules=TARGETS, use_rslora=True, rank_pattern={"q_proj": 4, "layers.1.mlp.up_proj": 2}, alpha_pattern={"v_proj": 3})),
            "embedding": (BASE, dict(r=8, target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True)),
        }
        for name, (model, settings) in pefts.items():
            d = from_peft(work, name, model, settings)
            print(f"peft   -> heddle {name:10} {d:.1e}", flush=True)
            worst = max(worst, d)
    print(f"worst {worst:.1e}")
    sys.exit(worst > 1e-5)


main()
