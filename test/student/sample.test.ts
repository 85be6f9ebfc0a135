/**
 * The sampler against transformers' greedy ids, and against forward passes over each prompt and completion alone. The
 * model's window is 8 tokens: prompts and completions go beyond it.
 */
import { tf } from "tfjs-jit";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { listPrompts, sizesOf } from "../../model/batch.js";
import { type ModelConfig, readModelConfig } from "../../model/config.js";
import type { Weights } from "../../model/forward.js";
import { createParameters, disposeParameters, type Parameters, readParameters } from "../../model/parameters.js";
import { EMBEDDING } from "../../model/shapes.js";
import { loadWeights } from "../../model/weights.js";
import { type Completion, type SamplingOptions, sampleCompletions } from "../../student/sample.js";
import { stopTexts } from "../../student/stop-texts.js";
import { completionLogprobsAlone, logitsAlone, logSoftmax } from "../model/alone.js";
import { fixture, readGolden } from "../model/golden.js";

const dir = fixture("models/gemma2-tiny");
let config: ModelConfig;
let parameters: Parameters;
let weights: Weights;
beforeAll(async () => {
  config = await readModelConfig(dir);
  parameters = createParameters(await loadWeights(dir, config));
  weights = readParameters(parameters);
});
afterAll(() => {
  disposeParameters(parameters);
  tf.dispose(weights as tf.TensorContainer);
});

// Op by op, which needs no compiling: that jit gives the same ids is a test of its own.
beforeEach(() => vi.stubEnv("HEDDLE_JIT", "0"));
afterEach(() => vi.unstubAllEnvs());

/** The model with another embedding matrix. */
function withEmbedding(change: (embedding: tf.Tensor) => tf.Tensor): { parameters: Parameters; config: ModelConfig } {
  const copies = tf.tidy(() =>
    Object.fromEntries(
      Object.entries(weights).map(([name, w]) => [name, (name === EMBEDDING ? change(w) : w).clone()]),
    ),
  );
  return { parameters: createParameters(copies), config };
}

const greedy = {
  samples: 1,
  maxNewTokens: 12,
  temperature: 0,
  topK: 0,
  topP: 1,
  logprobTemperature: 1,
  stopIds: [],
  seed: 0,
};

function sample(prompts: number[][], changes: Partial<SamplingOptions>, of = { parameters, config }): Completion[] {
  const options = { ...greedy, ...changes };
  const { samples, maxNewTokens } = options;
  const sizes = sizesOf(prompts, { rows: prompts.length, samples, maxNewTokens });
  return sampleCompletions(of.parameters, of.config, listPrompts(prompts, sizes), options);
}
const idsOf = (completions: Completion[]): number[][] => completions.map(({ ids }) => ids);

/** Prompts of 3 to 13 tokens. */
const long = [2, 5, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20];
const batches = {
  "which share their first tokens": [long, [2, 5, 7, 30], [2, 5, 8]],
  "which share nothing": [[100, 101, 102], long, [40, 41, 42, 43, 44, 45, 46]],
  "all the same": [long, long],
};
const cases = Object.entries(batches);

describe("at temperature 0", () => {
  test("the ids are those of transformers, where id 1 is never taken", async () => {
    const golden = await readGolden(dir);
    const [ids, attention] = [golden.ids!, golden.attention_mask!].map((x) => x.arraySync() as number[][]);
    const prompts = ids!.map((row, b) => row.filter((_, t) => attention![b]![t] === 1));
    // No prompt holds id 1. Its logit is 0 where its embedding is, and some other token's is larger.
    expect(prompts.flat()).not.toContain(1);
    const without1 = withEmbedding((embedding) => {
      const isOther_V1 = tf
        .oneHot(tf.tensor1d([1], "int32"), config.vocabSize)
        .toFloat()
        .reshape([-1, 1])
        .mul(-1)
        .add(1);
      return embedding.mul(isOther_V1);
    });
    expect(idsOf(sample(prompts, { maxNewTokens: 16 }, without1))).toEqual(golden.greedy!.arraySync());
    disposeParameters(without1.parameters);
  });

  test.each(cases)("each token is the likeliest after all those before it, for prompts %s", (_, prompts) => {
    sample(prompts, { samples: 2 }).forEach(({ ids }, c) => {
      const logprobs = completionLogprobsAlone(weights, config, prompts[Math.floor(c / 2)]!, ids);
      expect(ids, `completion ${c}`).toEqual(logprobs.map((row) => row.indexOf(Math.max(...row))));
      expect(ids.length).toBe(greedy.maxNewTokens);
    });
  });

  test.each([1, 2])("so it is in completions of five windows, %i of a prompt", (samples) => {
    const prompts = batches["which share nothing"];
    sample(prompts, { samples, maxNewTokens: 40 }).forEach(({ ids }, c) => {
      const logprobs = completionLogprobsAlone(weights, config, prompts[Math.floor(c / samples)]!, ids);
      expect(ids, `completion ${c}`).toEqual(logprobs.map((row) => row.indexOf(Math.max(...row))));
    });
  });

  test("all completions of a prompt are the one that it gets alone", () => {
    const prompts = batches["which share their first tokens"];
    const alone = prompts.map((prompt) => sample([prompt], {})[0]!.ids);
    expect(idsOf(sample(prompts, { samples: 3 }))).toEqual(alone.flatMap((ids) => [ids, ids, ids]));
  });
});

describe("a completion", () => {
  const prompts = batches["which share their first tokens"];

  test("ends with the first stop token, and goes on without one up to max_new_tokens", () => {
    const whole = idsOf(sample(prompts, { samples: 2, temperature: 1 }));
    const stopIds = [whole[0]![2]!, whole[3]![5]!];
    const stopped = idsOf(sample(prompts, { samples: 2, temperature: 1, stopIds }));
    expect(stopped).toEqual(
      whole.map((ids) => {
        const stop = ids.findIndex((id) => stopIds.includes(id));
        return ids.slice(0, stop === -1 ? ids.length : stop + 1);
      }),
    );
    const lengths = stopped.map(({ length }) => length);
    expect(Math.min(...lengths)).toBeLessThanOrEqual(3);
    expect(Math.max(...lengths)).toBe(greedy.maxNewTokens);
  });

  test("that comes to a stop text is sampled no further, however many tokens spell it", () => {
    const spelled = (ids: number[]) => ids.map((id) => `${id},`).join("");
    const [prompt] = prompts;
    const whole = sample([prompt!], {})[0]!.ids;
    const texts = stopTexts([spelled(whole.slice(0, 4))], (id) => Buffer.from(spelled([id])), config.vocabSize);
    // What was not sampled is 0.
    expect(sample([prompt!], { stopTexts: texts })[0]!.ids).toEqual(whole.map((id, n) => (n < 4 ? id : 0)));
    const other = stopTexts(["none"], (id) => Buffer.from(spelled([id])), config.vocabSize);
    expect(sample([prompt!], { stopTexts: other })[0]!.ids).toEqual(whole);
  });

  test.each([1, 9])("of at most %i tokens is the beginning of a longer one", (maxNewTokens) => {
    const [longer, shorter] = [sample(prompts, { temperature: 1 }), sample(prompts, { temperature: 1, maxNewTokens })];
    expect(idsOf(shorter)).toEqual(idsOf(longer).map((ids) => ids.slice(0, maxNewTokens)));
  });

  test.each([1, 0.7])(
    "has a logprob for each id: ln p at temperature %d, whatever was ruled out",
    (logprobTemperature) => {
      const options = { samples: 3, temperature: 0.7, topK: 50, topP: 0.9, logprobTemperature, seed: 5 };
      for (const [, prompts] of cases) {
        sample(prompts, options).forEach(({ ids, logprobs }, c) => {
          const all = completionLogprobsAlone(weights, config, prompts[Math.floor(c / 3)]!, ids);
          const expected = ids.map((id, n) => logSoftmax(all[n]!.map((x) => x / logprobTemperature))[id]!);
          expect(logprobs.length).toBe(ids.length);
          expect(Math.max(...logprobs.map((x, n) => Math.abs(x - expected[n]!)))).toBeLessThan(1e-4);
        });
      }
    },
  );

  test("is the same for the same seed and another for another, and differs from the prompt's others", () => {
    const of = (seed: number) => idsOf(sample([long], { samples: 4, temperature: 1, seed })).map(String);
    expect(of(7)).toEqual(of(7));
    expect(new Set([...of(7), ...of(8), ...of(-8)]).size).toBe(12);
  });

  test.each([
    ["top-k 1", { topK: 1 }],
    ["a top-p that the likeliest token reaches by itself", { topP: 1e-6 }],
    ["a temperature near 0", { temperature: 1e-5 }],
  ])("is the greedy one with %s", (_, changes) => {
    expect(idsOf(sample(prompts, { temperature: 1.5, ...changes }))).toEqual(idsOf(sample(prompts, {})));
  });
});

describe("2048 first tokens", () => {
  const prompt = [2, 5, 7, 30];
  /** Of 128 rows of 16 completions each. */
  const firstTokens = (options: Partial<SamplingOptions>): number[] =>
    idsOf(sample(new Array<number[]>(128).fill(prompt), { samples: 16, maxNewTokens: 1, ...options })).flat();

  /** softmax(logits / temperature), in float64. */
  function probabilities(temperature: number): number[] {
    const last = tf.tidy(() => logitsAlone(weights, config, prompt).arraySync().at(-1)!);
    return logSoftmax(last.map((x) => x / temperature)).map(Math.exp);
  }

  /** The tokens that `isKept` keeps share what the others lose. It is told each one's rank and the mass before it. */
  function keep(p_V: number[], isKept: (rank: number, massBefore: number) => boolean): number[] {
    const kept = p_V.map(() => 0);
    let before = 0;
    const order = p_V.map((_, id) => id).sort((a, b) => p_V[b]! - p_V[a]!);
    order.forEach((id, rank) => {
      if (isKept(rank, before)) kept[id] = p_V[id]!;
      before += p_V[id]!;
    });
    const mass = kept.reduce((a, b) => a + b, 0);
    return kept.map((p) => p / mass);
  }

  /**
   * Pearson's chi-square: the sum of (count - expected)^2 / expected over n tokens, here those of which at least 5 are
   * expected and all others as one, has a mean of n - 1 and a variance of 2 (n - 1).
   */
  function expectDrawnFrom(p_V: number[], ids: number[]): void {
    const counts = p_V.map(() => 0);
    for (const id of ids) counts[id]!++;
    p_V.forEach((p, id) => {
      if (p === 0) expect(counts[id], `token ${id}`).toBe(0);
    });
    const classes = p_V.map((p, id) => ({ expected: p * ids.length, count: counts[id]! }));
    const likely = classes.filter(({ expected }) => expected >= 5);
    const rest = { expected: ids.length, count: ids.length };
    for (const { expected, count } of likely) {
      rest.expected -= expected;
      rest.count -= count;
    }
    const compared = rest.expected >= 5 ? [...likely, rest] : likely;
    const chiSquare = compared.reduce((sum, { expected, count }) => sum + (count - expected) ** 2 / expected, 0);
    const freedom = compared.length - 1;
    expect(freedom).toBeGreaterThan(2);
    expect(chiSquare).toBeLessThan(freedom + 4 * Math.sqrt(2 * freedom));
  }

  test.each([0.5, 1, 2])("are drawn from softmax(logits / temperature) at temperature %d", (temperature) => {
    expectDrawnFrom(probabilities(temperature), firstTokens({ temperature }));
  });

  test("are among the k likeliest with top-k, in their proportions", () => {
    expectDrawnFrom(
      keep(probabilities(1), (rank) => rank < 5),
      firstTokens({ temperature: 1, topK: 5 }),
    );
  });

  test("are in the nucleus with top-p, which is the mass at the temperature", () => {
    for (const temperature of [0.7, 1.5])
      expectDrawnFrom(
        keep(probabilities(temperature), (_, massBefore) => massBefore < 0.8),
        firstTokens({ temperature, topP: 0.8 }),
      );
  });

  test("are in the nucleus of the k likeliest with both", () => {
    const likeliest = keep(probabilities(1), (rank) => rank < 8);
    expectDrawnFrom(
      keep(likeliest, (_, massBefore) => massBefore < 0.7),
      firstTokens({ temperature: 1, topK: 8, topP: 0.7 }),
    );
  });
});

test("where all 384 tokens are equally likely, two tokens in a row and two seeds are equal as often as by chance", () => {
  // Of 2048 pairs 2048 / 384 = 5.3 with a standard deviation of 2.3.
  const even = withEmbedding((embedding) => embedding.slice([5, 0], [1, -1]).tile([config.vocabSize, 1]));
  const pairs = (seed: number) =>
    idsOf(sample(new Array<number[]>(128).fill([2]), { samples: 16, maxNewTokens: 2, temperature: 1, seed }, even));
  const [ofOne, ofTwo] = [pairs(1), pairs(2)];
  expect(ofOne.length).toBe(2048);
  expect(ofOne.filter(([first, second]) => first === second).length).toBeLessThan(15);
  expect(ofOne.filter(([first], c) => first === ofTwo[c]![0]).length).toBeLessThan(15);
  expect(ofOne.filter(([, second], c) => second === ofTwo[c]![0]).length).toBeLessThan(15);
  disposeParameters(even.parameters);
});

test.each([
  ["greedy", { temperature: 0 }],
  ["sampled", { temperature: 0.9, topK: 100, topP: 0.95 }],
])("HEDDLE_JIT=0 gives the same ids, %s", (_, choice) => {
  const prompts = batches["which share their first tokens"];
  // Two layers, one of each kind, compile in half the time of four.
  const half = { parameters, config: { ...config, layerTypes: config.layerTypes.slice(0, 2) } };
  const fourth = sample(prompts, { samples: 2, seed: 3, ...choice }, half)[0]!.ids[3]!;
  const options = { samples: 2, seed: 3, stopIds: [fourth], ...choice };
  const eager = sample(prompts, options, half);
  vi.unstubAllEnvs();
  const compiled = sample(prompts, options, half);
  expect(idsOf(compiled)).toEqual(idsOf(eager));
  const difference = compiled.flatMap(({ logprobs }, c) =>
    logprobs.map((x, n) => Math.abs(x - eager[c]!.logprobs[n]!)),
  );
  expect(Math.max(...difference)).toBeLessThan(1e-4);
  expect(new Set(eager.map(({ ids }) => ids.length)).size).toBeGreaterThan(1);
});

test("leaves no tensor behind", () => {
  const before = tf.memory().numTensors;
  sample([long], { samples: 2, temperature: 1 });
  expect(tf.memory().numTensors).toBe(before);
});
