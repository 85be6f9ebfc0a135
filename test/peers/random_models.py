"""Compares logits with transformers' on random Gemma 2 and Gemma 3 configs: heads, groups, head size, window, caps, pattern, T.

    python test/peers/random_models.py [HOW_MANY] [SEED]

heddle must be built (`npm run build`). Prints a line a model and the worst difference. Needs torch and transformers.
"""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import Gemma2Config, Gemma2ForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig

LOGITS = Path(__file__).parents[2] / "dist" / "test" / "peers" / "logits.js"


def draw(rng: random.Random, family: str):
    groups = rng.choice([1, 2, 3, 4])
    heads = groups * rng.choice([1, 2, 3])
    head_dim = rng.choice([8, 16, 24, 34])
    layers = rng.randint(1, 8)
    common = dict(
        vocab_size=rng.choice([97, 256, 500]),
        hidden_size=heads * rng.choice([4, 8, 12]),
        intermediate_size=rng.choice([40, 96, 200]),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        head_dim=head_dim,
        query_pre_attn_scalar=rng.choice([head_dim, 17, 144]),
        sliding_window=rng.choice([1, 3, 8, 64]),
        rms_norm_eps=rng.choice([1e-6, 1e-5]),
        max_position_embeddings=256,
        initializer_range=0.2,
        attn_implementation="eager",
    )
    if family == "gemma2":
        return Gemma2ForCausalLM(
            Gemma2Config(
                **common,
                attn_logit_softcapping=rng.choice([50.0, 5.0, None]),
                final_logit_softcapping=rng.choice([30.0, 3.0, None]),
                rope_parameters={"rope_type": "default", "rope_theta": rng.choice([1e4, 1e3])},
            )
        )
    scaled = rng.choice([{"rope_type": "default"}, {"rope_type": "linear", "factor": rng.choice([2.0, 8.0])}])
    pattern = rng.choice([2, 3, 6])
    types = ["full_attention" if (i + 1) % pattern == 0 else "sliding_attention" for i in range(layers)]
    return Gemma3ForCausalLM(
        Gemma3TextConfig(
            **common,
            layer_types=types,
            final_logit_softcapping=rng.choice([None, 30.0]),
            rope_parameters={
                "full_attention": {"rope_theta": rng.choice([1e6, 1e5]), **scaled},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        )
    )


def main(count: int = 20, seed: int = 0) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        models = []
        for i in range(count):
            model = draw(rng, ["gemma2", "gemma3"][i % 2]).eval()
            with torch.no_grad():  # Norms that begin as zeros would hide what multiplies them.
                for name, parameter in model.named_parameters():
                    if "norm" in name:
                        parameter.normal_(0, 0.3)
            T = rng.choice([1, 7, 33, 130])
            ids = torch.randint(0, model.config.vocab_size, (2, T))
            dir = Path(folder, str(i))
            model.save_pretrained(dir)
            Path(dir, "ids.json").write_text(json.dumps(ids.tolist()))
            with torch.no_grad():
                models.append((dir, model.config, T, model(ids).logits))
        subprocess.run(["node", LOGITS, *[dir for dir, *_ in models]], check=True)
        worst = 0.0
        for dir, config, T, logits in models:
            difference = (load_file(dir / "logits.safetensors")["logits"] - logits).abs().max().item()
            worst = max(worst, difference)
            print(
                f"{config.model_type:12} {config.num_hidden_layers} layers, {config.num_attention_heads}/{config.num_key_value_heads}"
                f" heads of {config.head_dim}, window {config.sliding_window}, T {T}: {difference:.2e} of {logits.abs().max():.1f}"
            )
        print(f"worst difference: {worst:.2e}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
