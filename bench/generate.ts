/** The work of the peers' generate.py: 8 prompts of 64 tokens, 64 sampled tokens each. */
import { listPrompts, sizesOf } from "../model/batch.js";
import { sampleCompletions } from "../student/sample.js";
import { randomIds, randomParameters, studentConfig } from "./models.js";
import { timed } from "./time.js";

const [V, B, T, N] = [2048, 8, 64, 64];
const config = studentConfig(V);
const parameters = randomParameters(config);
const ids = randomIds(B * T, V);
const prompts = Array.from({ length: B }, (_, row) => ids.slice(row * T, (row + 1) * T));
const list = listPrompts(prompts, sizesOf(prompts, { rows: B, samples: 1, maxNewTokens: N }));
let seed = 0;

timed("heddle generate 8x64", () => {
  const choice = {
    samples: 1,
    maxNewTokens: N,
    temperature: 1,
    topK: 0,
    topP: 1,
    logprobTemperature: 1,
    stopIds: [],
    seed: seed++,
  };
  const completions = sampleCompletions(parameters, config, list, choice);
  if (completions.some((completion) => completion.ids.length !== N)) throw new Error("a completion is too short");
});
