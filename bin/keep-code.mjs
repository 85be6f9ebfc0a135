// `npm run build`: runs a small merge by the bundle, and keeps the code that V8 has made of it for bundled.js.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeSafetensors } from "safetensors-ts";
import { codePath, load, scripts } from "./bundled.js";

const folder = mkdtempSync(join(tmpdir(), "heddle-build-"));
const names = ["base", "a", "b"];
for (const [i, name] of names.entries()) {
  mkdirSync(join(folder, name));
  writeFileSync(join(folder, name, "config.json"), JSON.stringify({ model_type: "gemma2" }));
  const data = new Uint8Array(Float32Array.of(i, 1, 2, 3).buffer);
  const tensors = ["embed", "layers.0.w"].map((layer) => ({
    name: `model.${layer}`,
    dtype: "F32",
    shape: [2, 2],
    data,
  }));
  await writeSafetensors(join(folder, name, "model.safetensors"), tensors);
}
const [base, ...models] = names.map((name) => join(folder, name));
const recipe = { merge_method: "warp", base_model: base, models: models.map((model) => ({ model })) };
writeFileSync(join(folder, "recipe.yml"), JSON.stringify(recipe));

// The merge itself is nobody's business unless it fails.
const { write } = process.stderr;
let said = "";
process.stderr.write = (text) => {
  said += text;
  return true;
};
const code = await load("cli.cjs").main(["merge", join(folder, "recipe.yml"), join(folder, "out")]);
process.stderr.write = write;
rmSync(folder, { recursive: true });
if (code !== 0) throw new Error(`the bundle's merge ended with ${code}: ${said}`);
for (const [path, script] of scripts()) writeFileSync(codePath(path), script.createCachedData());
