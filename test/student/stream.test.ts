/** Sampling a few tokens at a time against sampling all at once. The models' windows are 8 tokens; texts go beyond them. */
import { tf } from "tfjs-jit";
import { afterEach, describe, expect, test, vi } from "vitest";
import { listPrompts, sizesOf } from "../../model/batch.js";
import { disposeModel, type LoadedModel, loadModel } from "../../model/loaded.js";
import { sampleCompletions } from "../../student/sample.js";
import { openStream, type Stream, type StreamOptions } from "../../student/stream.js";
import { fixture } from "../model/golden.js";

afterEach(() => vi.unstubAllEnvs());

const greedy: StreamOptions = { maxNewTokens: 20, temperature: 0, topK: 0, topP: 1, stopIds: [], seed: 0 };
const prompt = [2, 5, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20];

const all = (stream: Stream, ids: number[], changes: Partial<StreamOptions> = {}) =>
  [...stream.complete(ids, { ...greedy, ...changes })].flat();

/** Op by op, which needs no compiling. */
function atOnce({ parameters, folder: { config } }: LoadedModel, ids: number[], changes: Partial<StreamOptions> = {}) {
  const options = { ...greedy, ...changes, samples: 1, logprobTemperature: 1 };
  const sizes = sizesOf([ids], { rows: 1, samples: 1, maxNewTokens: options.maxNewTokens });
  vi.stubEnv("HEDDLE_JIT", "0");
  const [completion] = sampleCompletions(parameters, config, listPrompts([ids], sizes), options);
  vi.unstubAllEnvs();
  return completion!.ids;
}

/** Two layers, a sliding one and a full one, compile in less time than all. */
const LAYER_TYPES = ["sliding_attention", "full_attention"] as const;

async function withStream(name: string, use: (model: LoadedModel, stream: Stream) => void): Promise<void> {
  const { folder, parameters } = await loadModel(fixture(`models/${name}`));
  const model = { folder: { ...folder, config: { ...folder.config, layerTypes: LAYER_TYPES } }, parameters };
  const stream = openStream(model.parameters, model.folder.config);
  try {
    use(model, stream);
  } finally {
    stream.dispose();
    disposeModel(model);
  }
}

describe.each(["gemma2-tiny", "gemma3-tiny"])("%s", (name) => {
  test("the likeliest tokens are those of sampling at once, also after a prompt that goes on from the last", async () => {
    await withStream(name, (model, stream) => {
      const first = all(stream, prompt);
      expect(first).toEqual(atOnce(model, prompt));
      const second = [...prompt, ...first, 30, 31];
      const answer = all(stream, second);
      expect(answer).toEqual(atOnce(model, second));
      // What it was before is of no matter.
      expect(all(stream, [2, 5, 9, 40])).toEqual(atOnce(model, [2, 5, 9, 40]));
      expect(all(stream, second)).toEqual(answer);
      expect(all(stream, [7])).toEqual(atOnce(model, [7]));
    });
  });
});

test("ends with the first stop token", async () => {
  await withStream("gemma2-tiny", (_, stream) => {
    const whole = all(stream, prompt);
    const stop = whole[5]!;
    expect(all(stream, prompt, { stopIds: [stop] })).toEqual(whole.slice(0, whole.indexOf(stop) + 1));
  });
});

test("the same seed gives the same tokens, however they are called for, another seed others", async () => {
  await withStream("gemma2-tiny", (_, stream) => {
    const hot = { temperature: 2, topK: 50, topP: 0.95, seed: 3 };
    const whole = all(stream, prompt, hot);
    expect(all(stream, prompt, { ...hot, seed: 4 })).not.toEqual(whole);
    for (const few of [1, 2, 7])
      expect(all(stream, prompt, { ...hot, maxNewTokens: few })).toEqual(whole.slice(0, few));
    const [begin] = stream.complete(prompt, { ...greedy, ...hot });
    const rest = all(stream, [...prompt, ...begin!], { ...hot, maxNewTokens: 20 - begin!.length });
    expect([...begin!, ...rest]).toEqual(whole);
  });
});

test("a sequence that outgrows its slots gets more; nothing is left behind", async () => {
  const before = tf.memory().numTensors;
  await withStream("gemma2-tiny", (_, stream) => {
    const long = Array.from({ length: 700 }, (_, i) => 2 + (i % 90));
    const few = { maxNewTokens: 3 };
    const grown = [all(stream, long.slice(0, 200), few), all(stream, long, few)];
    stream.dispose();
    expect([all(stream, long.slice(0, 200), few), all(stream, long, few)]).toEqual(grown);
    stream.dispose();
    expect(all(stream, long, few)).toEqual(grown[1]);
  });
  expect(tf.memory().numTensors).toBe(before);
});

test("op by op it gives what it gives compiled", async () => {
  await withStream("gemma2-tiny", (_, stream) => {
    const compiled = all(stream, prompt, { maxNewTokens: 6 });
    stream.dispose();
    vi.stubEnv("HEDDLE_JIT", "0");
    expect(all(stream, prompt, { maxNewTokens: 6 })).toEqual(compiled);
  });
});
