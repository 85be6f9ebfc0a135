/**
 * Models of the published shapes, of random bfloat16 weights and two layers each: they load, score 16 tokens and give
 * finite numbers. shapes.js [FOLDER] [NAME ...]; a model is up to 5 GB, and is removed after it.
 */
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { disposeModel, loadModel } from "../model/loaded.js";
import { scoreBatch } from "../teacher/in-process.js";
import { PUBLISHED, type Published, writePublished } from "./large-model.js";
import { peakRssMb, print } from "./time.js";

const [folder = tmpdir(), ...named] = process.argv.slice(2);
const names = (named.length > 0 ? named : Object.keys(PUBLISHED)) as Published[];
const LAYERS = 2;
const ids = Array.from({ length: 16 }, (_, i) => 3 + ((i * 7919) % 250000));

for (const name of names) {
  const dir = join(folder, `heddle-bench-${name}`);
  try {
    await writePublished(dir, name, LAYERS);
    const begin = performance.now();
    const model = await loadModel(dir, { storageOf: () => "stored" });
    const load_s = (performance.now() - begin) / 1000;
    const batch = { requests: [{ ids, from: 1 }], k: 0, rows: 1, length: ids.length };
    const [scores] = scoreBatch(model.parameters, model.folder.config, batch);
    disposeModel(model);
    if (!scores!.actual.every((logprob) => Number.isFinite(logprob) && logprob < 0)) {
      throw new Error(`${name}: log-probabilities ${scores!.actual}`);
    }
    print({ name, layers: LAYERS, load_s, mean_logprob: mean(scores!.actual), peak_rss_mb: peakRssMb() });
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

function mean(values: Float32Array): number {
  return values.reduce((a, b) => a + b, 0) / values.length;
}
