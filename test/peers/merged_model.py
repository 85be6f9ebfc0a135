"""Loads a stack of layers that `heddle merge` made with transformers, and compares it with the same layers put together there:
once from the configs as they are, once from configs without layer_types, as the Hub has them.

    python test/peers/merged_model.py [MODELS_DIR]

MODELS_DIR holds models a and b of three layers; without it they are those of test/fixtures/mergekit. Heddle must be built
(`npm run build`). Needs torch and transformers; no part of the test suite.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).parents[2]
SLICES = [("a", 0, 2), ("b", 1, 3), ("b", 2, 3), ("a", 0, 3)]


def load(path: Path) -> torch.nn.Module:
    model, info = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    wrong = {name: keys for name, keys in info.items() if keys}
    if wrong:
        sys.exit(f"{path}: {wrong}")
    return model.eval()


def main(models_dir: Path) -> None:
    check_stack(models_dir)
    with tempfile.TemporaryDirectory() as folder:
        for name in "ab":
            shutil.copytree(models_dir / name, Path(folder, name))
            config = Path(folder, name, "config.json")
            settings = json.loads(config.read_text())
            settings.pop("layer_types", None)
            config.write_text(json.dumps(settings, indent=2))
        check_stack(Path(folder))


def check_stack(models_dir: Path) -> None:
    sources = {name: load(models_dir / name) for name in "ab"}
    with tempfile.TemporaryDirectory() as folder:
        recipe, out = Path(folder, "stack.yml"), Path(folder, "out")
        slices = [f"  - sources: [{{model: {models_dir / name}, layer_range: [{begin}, {end}]}}]\n" for name, begin, end in SLICES]
        recipe.write_text("merge_method: passthrough\nslices:\n" + "".join(slices))
        subprocess.run(["node", ROOT / "bin" / "heddle.js", "merge", recipe, out], check=True)
        merged = load(out)

    # The same in transformers: the layers themselves, each with the attention it has where it comes from.
    layers = [(sources[name].model.layers[i], sources[name].config.layer_types[i]) for name, begin, end in SLICES for i in range(begin, end)]
    types = [layer_type for _, layer_type in layers]
    print(f"{len(merged.model.layers)} layers: {', '.join(merged.config.layer_types)}")
    if len(merged.model.layers) != len(layers) or merged.config.layer_types != types:
        sys.exit(f"expected {len(layers)} layers: {', '.join(types)}")
    first, last = sources[SLICES[0][0]], sources[SLICES[-1][0]]
    same = torch.equal(merged.model.embed_tokens.weight, first.model.embed_tokens.weight)
    same &= torch.equal(merged.model.norm.weight, last.model.norm.weight)
    for layer, (expected, _) in zip(merged.model.layers, layers):
        same &= all(torch.equal(value, expected.state_dict()[name]) for name, value in layer.state_dict().items())
    with torch.no_grad():
        logits = merged(torch.arange(3, 23)[None]).logits
    print(f"weights are those of the sources: {same}; logits are finite: {bool(logits.isfinite().all())}")
    if not same or not logits.isfinite().all():
        sys.exit(1)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]).resolve() if len(sys.argv) == 2 else ROOT / "test" / "fixtures" / "mergekit" / "models")
