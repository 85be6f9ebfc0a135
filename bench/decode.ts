/**
 * Decoding with a model as a user has it: decode.js MODEL_DIR [BATCH] [DTYPE]. Greedy, prompts of 16 tokens, 64 new ones.
 * test/peers/decode.py does the same with transformers.
 */
import { listPrompts, sizesOf } from "../model/batch.js";
import type { ComputeDtype } from "../model/compute.js";
import { loadModel } from "../model/loaded.js";
import { sampleCompletions } from "../student/sample.js";
import { peakRssMb, print, secondsOf } from "./time.js";

const [dir, batch = "1", dtype = "float32"] = process.argv.slice(2);
if (dir === undefined) throw new Error("decode.js MODEL_DIR [BATCH] [DTYPE]");
const [B, T, N] = [Number(batch), 16, 64];
const { folder, parameters } = await loadModel(dir, { dtype: dtype as ComputeDtype, learns: false });
const prompts = Array.from({ length: B }, (_, row) => Array.from({ length: T }, (_, t) => 1000 + 37 * row + 11 * t));
const list = listPrompts(prompts, sizesOf(prompts, { rows: B, samples: 1, maxNewTokens: N }));

const time = secondsOf(
  () => {
    const choice = {
      samples: 1,
      maxNewTokens: N,
      temperature: 0,
      topK: 0,
      topP: 1,
      logprobTemperature: 1,
      stopIds: [],
      seed: 0,
    };
    sampleCompletions(parameters, folder.config, list, choice);
  },
  3,
  1,
);
const tokens_per_second = Math.round((B * N) / time.median_s);
print({ name: `heddle decode, batch ${B}, ${dtype}`, ...time, tokens_per_second, peak_rss_mb: peakRssMb() });
