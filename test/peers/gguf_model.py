"""Converts a GGUF file with `heddle convert` and compares heddle, llama.cpp and transformers on it.

    python test/peers/gguf_model.py MODEL.gguf [TEXT.txt]

Weights: gguf-py's dequantised values against the converted folder's, in float32. Token ids of a page of English, its
perplexity, and 64 greedy tokens after its first two sentences: by heddle and transformers from the folder, by llama.cpp
from the file. llama.cpp quantises activations to 8 bits before it multiplies them with quantised weights, so its numbers
are near, not equal; from a copy of the file whose weights gguf-py has dequantised they are. Needs gguf, llama-cpp-python, torch and transformers; heddle must be built. No part of the test suite.
"""

import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gguf
import numpy as np
import torch
from llama_cpp import Llama
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).parents[2]
NEW_TOKENS = 64
F32 = int(gguf.GGMLQuantizationType.F32)


def heddle(*args: object) -> None:
    subprocess.run(["node", ROOT / "bin" / "heddle.js", *map(str, args)], check=True, stderr=subprocess.DEVNULL)


def count_different_weights(model: str, folder: Path) -> str:
    reader = gguf.GGUFReader(model)
    architecture = gguf.MODEL_ARCH[reader.fields["general.architecture"].contents().upper()]
    layers = reader.fields[f"{reader.fields['general.architecture'].contents()}.block_count"].contents()
    names = gguf.get_tensor_name_map(architecture, layers)
    stored = {tensor.name: tensor for tensor in reader.tensors}
    different = 0
    with safe_open(folder / "model.safetensors", "np") as file:
        for name in file.keys():
            tensor = stored.pop(names.get_name(name, try_suffixes=(".weight",)))
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            different += not np.array_equal(values - np.float32(1 if "norm" in name else 0), file.get_tensor(name))
        return f"{different} of {len(file.keys())} tensors differ from gguf-py's, {len(stored)} are left out"


def write_dequantised(model: str, path: Path) -> None:
    reader = gguf.GGUFReader(model)
    writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind, *inner = field.types
        writer.add_key_value(name, field.contents(), kind, inner[0] if inner else None)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def perplexity(logprobs: list[float]) -> float:
    return math.exp(-sum(logprobs) / len(logprobs))


def with_heddle(folder: Path, text: str, prompt: str) -> dict:
    with tempfile.TemporaryDirectory() as scratch:
        rows, out = Path(scratch, "rows.jsonl"), Path(scratch, "out.jsonl")
        rows.write_text(json.dumps({"prompt": text}) + "\n")
        heddle("score", "--ignore-chat-template", "--model", folder, "--data", rows, "--out", out)
        scored = json.loads(out.read_text())
        rows.write_text(json.dumps({"prompt": prompt}) + "\n")
        out.unlink()
        heddle("generate", "--ignore-chat-template", "--model", folder, "--data", rows, "--out", out,
               "--temperature", 0, "--max-new-tokens", NEW_TOKENS)  # fmt: skip
        greedy = json.loads(out.read_text())["completion_ids"]
    return {"ids": scored["ids"], "logprobs": scored["logprobs"][1:], "greedy": greedy}


@torch.inference_mode()
def with_transformers(folder: Path, text: str, prompt: str) -> dict:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    ids = tokenizer(text, return_tensors="pt").input_ids
    logprobs = torch.log_softmax(model(ids).logits[0, :-1].float(), -1)
    start = tokenizer(prompt, return_tensors="pt").input_ids
    greedy = model.generate(start, do_sample=False, max_new_tokens=NEW_TOKENS)[0, start.shape[1] :]
    chosen = logprobs.gather(1, ids[0, 1:, None])[:, 0]
    return {"ids": ids[0].tolist(), "logprobs": chosen.tolist(), "greedy": greedy.tolist()}


def with_llama_cpp(model: str, text: str, prompt: str, stops: set[int]) -> dict:
    llama = Llama(model, n_ctx=2048, logits_all=True, type_k=F32, type_v=F32, flash_attn=False, verbose=False)
    ids = llama.tokenize(text.encode(), add_bos=True, special=True)
    llama.eval(ids)
    logits = torch.from_numpy(np.array(llama.scores[: len(ids) - 1]))
    chosen = torch.log_softmax(logits, -1).gather(1, torch.tensor(ids)[1:, None])[:, 0]
    llama.reset()
    llama.eval(llama.tokenize(prompt.encode(), add_bos=True, special=True))
    greedy: list[int] = []
    while len(greedy) < NEW_TOKENS and not (greedy and greedy[-1] in stops):
        greedy.append(int(np.argmax(llama.scores[llama.n_tokens - 1])))
        llama.eval(greedy[-1:])
    return {"ids": ids, "logprobs": chosen.tolist(), "greedy": greedy}


def main(model: str, text_file: str) -> None:
    text = Path(text_file).read_text().strip()
    prompt = ". ".join(text.split(". ")[:2]) + "."
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "model")
        began = time.monotonic()
        heddle("convert", model, folder, "--dtype", "float32")
        print(f"converted in {time.monotonic() - began:.1f} s; {count_different_weights(model, folder)}")
        eos = json.loads((folder / "config.json").read_text())["eos_token_id"]
        stops = set(eos if isinstance(eos, list) else [eos])
        dequantised = Path(scratch, "dequantised.gguf")
        write_dequantised(model, dequantised)
        results = {
            "heddle": with_heddle(folder, text, prompt),
            "transformers": with_transformers(folder, text, prompt),
            "llama.cpp": with_llama_cpp(model, text, prompt, stops),
            "llama.cpp, dequantised": with_llama_cpp(str(dequantised), text, prompt, stops),
        }
    ours = results["heddle"]
    for name, result in results.items():
        same_ids = "same ids" if result["ids"] == ours["ids"] else "OTHER IDS"
        worst = max(abs(a - b) for a, b in zip(result["logprobs"], ours["logprobs"]))
        pairs = list(zip(result["greedy"], ours["greedy"]))
        alike = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
        print(
            f"{name:22}  {len(result['ids'])} tokens, {same_ids}; perplexity {perplexity(result['logprobs']):.6f}, "
            f"largest difference of a log-probability {worst:.1e}; {alike} of {len(result['greedy'])} greedy tokens alike"
        )


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2] if len(sys.argv) == 3 else str(ROOT / "test" / "fixtures" / "convert" / "page.txt"))
