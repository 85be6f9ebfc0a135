/**
 * A model of the shape of gemma-2-2b in bfloat16: loads, scores 512 tokens, and takes 5 training steps of 128 tokens with
 * all but the last two layers frozen; with `qlora`, of an adapter of rank 16 on all projections of a base in NF4.
 * large.js [FOLDER] [LAYERS] [qlora]; the folder is written once, 5.2 GB.
 */
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodePrompts } from "../distill/encode.js";
import { type SftSettings, sft } from "../distill/sft.js";
import { type LoadedModel, loadModel } from "../model/loaded.js";
import type { LoraSettings } from "../model/lora.js";
import type { Storage } from "../model/stored-tensor.js";
import { quantisedIn } from "../model/weights.js";
import { createAdapter } from "../student/lora.js";
import { scoreBatch } from "../teacher/in-process.js";
import { writePublished } from "./large-model.js";
import { distillSettings } from "./settings.js";
import { timeStage } from "./stages.js";
import { peakRssMb, print } from "./time.js";

const [TOKENS_SCORED, TOKENS_LEARNT, STEPS] = [512, 128, 5];
const dir = process.argv[2] ?? join(tmpdir(), "heddle-bench-2b");
const layers = Number(process.argv[3] ?? 26);
const isQlora = process.argv[4] === "qlora";
const rssMb = () => Math.round(process.memoryUsage.rss() / 2 ** 20);
async function timed<R>(name: string, work: () => Promise<R> | R): Promise<R> {
  const begin = performance.now();
  const result = await work();
  print({ name, s: (performance.now() - begin) / 1000, rss_mb: rssMb(), peak_rss_mb: peakRssMb() });
  return result;
}

await timed("write", () => writePublished(dir, "gemma-2-2b", layers));
const lora: LoraSettings = {
  r: 16,
  lora_alpha: 32,
  lora_dropout: 0,
  target_modules: "all-linear",
  use_rslora: false,
  modules_to_save: [],
};
const lastLayers = [layers - 2, layers - 1].map((layer) => `layers\\.${layer}\\.`);
const patterns = lastLayers.map((pattern) => new RegExp(pattern));
const plainly = (name: string): Storage => (patterns.some((pattern) => pattern.test(name)) ? "float32" : "stored");
async function load(): Promise<LoadedModel> {
  if (!isQlora) return loadModel(dir, { storageOf: plainly });
  const { folder, parameters } = await loadModel(dir, { storageOf: quantisedIn("nf4") });
  return { folder, parameters: { ...parameters, ...createAdapter(folder.config, lora, () => 1) } };
}
const model = await timed("load", load);
const ids = Array.from({ length: TOKENS_SCORED }, (_, i) => 3 + ((i * 7919) % 250000));
await timed("score", () => {
  const request = { ids, from: 1 };
  return scoreBatch(model.parameters, model.folder.config, {
    requests: [request],
    k: 0,
    rows: 1,
    length: TOKENS_SCORED,
  });
});

const text = "0123456789+".repeat(20);
const [prompt] = await encodePrompts(model.folder, [{ prompt: text.slice(0, 50), completion: text }], {
  system: "error",
  maxNewTokens: 0,
});
// A completion's last token predicts nothing: the model computes all tokens but this one.
const max_new_tokens = TOKENS_LEARNT + 1 - prompt!.prompt.length;
const learns = isQlora ? { lora } : { trainable: lastLayers };
const settings: SftSettings = { ...distillSettings(STEPS, 1), batch_size: 1, max_new_tokens, ...learns };
const rss: number[] = [];
const { steps } = await timeStage("large", 0, (context) => {
  const onStep = (...step: Parameters<typeof context.onStep>) => {
    rss.push(rssMb());
    context.onStep(...step);
  };
  return sft(model, [prompt!], settings, { ...context, onStep });
});
print({ name: "5 steps of sft", steps_s: steps, rss_mb: rss, peak_rss_mb: peakRssMb() });
