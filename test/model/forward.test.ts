/** Gemma 2 and 3 against transformers: the golden files are in float32, with left-padded rows longer than the window. */
import { jit, tf } from "tfjs-jit";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Block } from "../../model/attention.js";
import type { Segment } from "../../model/compute.js";
import { computedAs, type ModelConfig, readModelConfig } from "../../model/config.js";
import { everyType } from "../../model/config-keys.js";
import {
  type Cache,
  emptyCache,
  forward,
  forwardInLoops,
  logits,
  type Memory,
  type Weights,
} from "../../model/forward.js";
import { parameterShapes } from "../../model/shapes.js";
import { loadWeights } from "../../model/weights.js";
import { fixture, largestDifference, readGolden } from "./golden.js";

const int32 = (value: number) => tf.scalar(value, "int32");

/** int32: the first attended token has position 0, and so has the padding before it. */
const positions = (attention_BT: tf.Tensor2D): tf.Tensor2D =>
  tf.cumsum(attention_BT.toFloat(), 1).sub(1).relu().cast<tf.Tensor2D>("int32");

/** Tokens in rows that have none missing. */
function fullGrid([B, T]: [number, number]): Block["layout"] {
  const slot_M = tf.range(0, B * T, 1, "int32");
  return { token_BT: slot_M.reshape([B, T]), slot_M };
}

const inRows = (ids_BT: tf.Tensor2D, positions_BT: tf.Tensor2D) => ({
  ids_M: ids_BT.flatten() as tf.Tensor1D,
  positions_M: positions_BT.flatten() as tf.Tensor1D,
  segments_M: tf.zeros<tf.Rank.R1>([ids_BT.size], "int32"),
});

/** The golden files' rows as they are: padding stands in the list too, and no slot holds it. */
function leftPadded(ids_BT: tf.Tensor2D, attention_BT: tf.Tensor2D): Block {
  const { token_BT, slot_M } = fullGrid(ids_BT.shape);
  const isToken_BT = attention_BT.greater(int32(0));
  const attended_BT = tf.where(isToken_BT, token_BT, tf.fill(ids_BT.shape, -1, "int32")) as tf.Tensor2D;
  return { ...inRows(ids_BT, positions(attention_BT)), layout: { token_BT: attended_BT, slot_M } };
}

const models = ["gemma2-tiny", "gemma2-tiny-bf16-sharded", "gemma3-tiny"];
const ways: [string, string][] = [
  ["op by op", "0"],
  ["jit", "1"],
];
const before = process.env.HEDDLE_JIT;
afterAll(() => {
  if (before === undefined) delete process.env.HEDDLE_JIT;
  else process.env.HEDDLE_JIT = before;
});

describe.each(models)("%s", (name) => {
  let config: ModelConfig;
  let weights: Record<string, tf.Tensor>;
  let golden: Record<string, tf.Tensor>;
  beforeAll(async () => {
    const dir = fixture(`models/${name}`);
    config = await readModelConfig(dir);
    weights = await loadWeights(dir, config);
    golden = await readGolden(dir);
  });

  describe.each(ways)("%s", (_, HEDDLE_JIT) => {
    beforeAll(() => {
      process.env.HEDDLE_JIT = HEDDLE_JIT;
    });

    type Rows = (w: Weights, ids_BT: tf.Tensor2D, attention_BT: tf.Tensor2D) => tf.Tensor3D;
    const wholeRows: Rows = (w, ids_BT, attention_BT) =>
      forward(w, config, leftPadded(ids_BT, attention_BT)).hidden_MD.reshape([...ids_BT.shape, -1]);
    const inLoops =
      (segmentsOf: (layers: number) => Segment[]): Rows =>
      (w, ids_BT, attention_BT) => {
        const segments = segmentsOf(config.numHiddenLayers);
        return forwardInLoops(w, config, leftPadded(ids_BT, attention_BT), null, segments).reshape([
          ...ids_BT.shape,
          -1,
        ]);
      };
    const wholeLogits = (w: Weights, hidden_BTD: tf.Tensor3D): tf.Tensor3D => {
      const [B, T, D] = hidden_BTD.shape;
      return logits(w, config, hidden_BTD.reshape([B * T, D])).reshape([B, T, -1]);
    };

    test("hidden states and logits at attended positions are those of transformers", () => {
      const run = jit((w: Weights, ids: tf.Tensor2D, attention: tf.Tensor2D) => {
        const hidden_BTD = wholeRows(w, ids, attention);
        return { hidden_BTD, logits_BTV: wholeLogits(w, hidden_BTD) };
      });
      const { hidden_BTD, logits_BTV } = run(weights, golden.ids as tf.Tensor2D, golden.attention_mask as tf.Tensor2D);
      expect(largestDifference(hidden_BTD, golden.hidden!, golden.attention_mask)).toBeLessThan(2e-4);
      expect(largestDifference(logits_BTV, golden.logits!, golden.attention_mask)).toBeLessThan(2e-4);
      expect(logits_BTV.abs().max().dataSync()[0]).toBeLessThan(30); // also where the row is padding: finite
    });

    test.each([
      ["layer by layer", wholeRows],
      ["with its layers in one loop", inLoops((count) => [{ first: 0, count }])],
      [
        "with its layers in loops",
        inLoops((layers) => [
          { first: 0, count: 1 },
          { first: 1, count: layers - 1 },
        ]),
      ],
    ])("%s, the loss and its gradient by every parameter are those of transformers", (_, rowsOf) => {
      const run = jit((w: Weights, ids: tf.Tensor2D, attention: tf.Tensor2D) => {
        const names = Object.keys(w);
        const named = (tensors: readonly tf.Tensor[]) => Object.fromEntries(names.map((key, i) => [key, tensors[i]!]));
        const { value, grads } = tf.valueAndGrads((...tensors) => {
          const of = named(tensors);
          return crossEntropy(of, rowsOf(of, ids, attention), ids, attention);
        })(Object.values(w));
        return { value, grads: named(grads) };
      });
      const { value, grads } = run(weights, golden.ids as tf.Tensor2D, golden.attention_mask as tf.Tensor2D);
      expect(Math.abs(value.dataSync()[0]! - golden.loss!.dataSync()[0]!)).toBeLessThan(1e-5);
      for (const parameter of Object.keys(parameterShapes(config))) {
        const expected = golden[`grad.${parameter}`]!;
        const largest = expected.abs().max().dataSync()[0]!;
        expect(largestDifference(grads[parameter]!, expected) / largest, parameter).toBeLessThan(1e-3);
      }
    });

    describe("with a memory of the prompt and 16 slots for what follows", () => {
      type Step = { logits_BTV: tf.Tensor; cache: Cache };
      const step = jit((w: Weights, block: Block, memory: Memory | null): Step => {
        const { hidden_MD, cache } = forward(w, config, block, memory);
        return { logits_BTV: logits(w, config, hidden_MD).reshape([...block.layout.token_BT.shape, -1]), cache };
      });

      /** Runs the prompt, and gives a function that runs what follows, from token k on. */
      function prefill(): {
        first: Step;
        next: (ids_BT: tf.Tensor2D, k: number, own: Cache) => Step;
        empty: Cache;
      } {
        const prompt_BS = golden.attention_mask as tf.Tensor2D;
        const B = prompt_BS.shape[0];
        const lengths_B1 = prompt_BS.sum(1, true);
        const ownPositions_BS = lengths_B1.add<tf.Tensor2D>(tf.range(0, 16, 1, "int32"));
        const keys = { positions_BS: ownPositions_BS, segments_BS: tf.zeros<tf.Rank.R2>([B, 16], "int32") };
        const first = step(weights, leftPadded(golden.ids as tf.Tensor2D, prompt_BS), null);
        const prompts = {
          cache: first.cache,
          keys: everyType({ positions_BS: positions(prompt_BS), segments_BS: prompt_BS.sub<tf.Tensor2D>(int32(1)) }),
        };
        const next = (ids_BT: tf.Tensor2D, k: number, own: Cache): Step => {
          const layout = fullGrid(ids_BT.shape);
          const block = { ...inRows(ids_BT, ownPositions_BS.slice([0, k], ids_BT.shape)), layout };
          const slots = everyType({ keys, start: int32(k) });
          return step(weights, block, { own: { cache: own, slots }, prompts: { ...prompts, layout } });
        };
        return { first, next, empty: emptyCache(config, B, everyType(16)) };
      }
      const last = (logits_BTV: tf.Tensor) => logits_BTV.slice([0, logits_BTV.shape[1]! - 1, 0], [-1, 1, -1]);

      /** Logits [B, 16, V] that predict each of 16 tokens, which `choose` picks by the logits before it. */
      function decode(choose: (k: number, logits_B1V: tf.Tensor) => tf.Tensor2D): {
        logits: tf.Tensor;
        ids: tf.Tensor;
      } {
        const { first, next, empty } = prefill();
        let { logits_BTV, cache } = { ...first, cache: empty };
        const predicted = [last(logits_BTV)];
        const ids: tf.Tensor2D[] = [choose(0, predicted[0]!)];
        for (let k = 1; k < 16; k++) {
          ({ logits_BTV, cache } = next(ids[k - 1]!, k - 1, cache));
          predicted.push(logits_BTV);
          ids.push(choose(k, logits_BTV));
        }
        return { logits: tf.concat(predicted, 1), ids: tf.concat(ids, 1) };
      }

      test("forced tokens, one by one, have the logits of transformers", () => {
        const forced = decode((k) => golden.forced!.slice([0, k], [-1, 1]) as tf.Tensor2D);
        expect(largestDifference(forced.logits, golden.forced_logits!)).toBeLessThan(2e-4);
      });

      test("forced tokens as one block have the same logits", () => {
        const { first, next, empty } = prefill();
        const block = next(golden.forced as tf.Tensor2D, 0, empty);
        const predicted = tf.concat([last(first.logits_BTV), block.logits_BTV.slice([0, 0, 0], [-1, 15, -1])], 1);
        expect(largestDifference(predicted, golden.forced_logits!)).toBeLessThan(2e-4);
      });

      test("the likeliest tokens without id 1 are those of transformers", () => {
        const without1 = tf.oneHot(tf.tensor1d([1], "int32"), config.vocabSize).mul(-1e9);
        const likeliest = decode((_, logits_B1V) => logits_B1V.add(without1).argMax<tf.Tensor2D>(-1));
        expect(likeliest.ids.arraySync()).toEqual(golden.greedy!.arraySync());
      });
    });

    /** Mean cross-entropy over the pairs of neighbours that are both attended. */
    function crossEntropy(w: Weights, hidden_BTD: tf.Tensor3D, ids: tf.Tensor2D, attention: tf.Tensor2D): tf.Scalar {
      const [B, T] = ids.shape;
      const next = ids.slice([0, 1], [B, T - 1]).flatten() as tf.Tensor1D;
      const hidden = hidden_BTD.slice([0, 0, 0], [B, T - 1, -1]) as tf.Tensor3D;
      const logp = tf.logSoftmax(wholeLogits(w, hidden)).reshape([B * (T - 1), -1]);
      const pairs = attention
        .slice([0, 0], [B, T - 1])
        .mul(attention.slice([0, 1], [B, T - 1]))
        .flatten()
        .toFloat();
      const nll = logp.mul(tf.oneHot(next, config.vocabSize).toFloat()).sum(-1).neg();
      return nll.mul(pairs).sum().div(pairs.sum());
    }
  });
});

describe.each(ways)("a model in bfloat16, %s", (_, HEDDLE_JIT) => {
  let config: ModelConfig;
  let weights: Record<string, tf.Tensor>;
  let golden: Record<string, tf.Tensor>;
  beforeAll(async () => {
    process.env.HEDDLE_JIT = HEDDLE_JIT;
    const dir = fixture("models/gemma2-tiny-bf16-sharded");
    config = await readModelConfig(dir);
    weights = await loadWeights(dir, config, () => "stored");
    golden = await readGolden(dir);
  });
  const logitsOf = (of: ModelConfig) =>
    jit((w: Weights, ids: tf.Tensor2D, attention: tf.Tensor2D) =>
      logits(w, of, forward(w, of, leftPadded(ids, attention)).hidden_MD).reshape([...ids.shape, -1]),
    )(weights, golden.ids as tf.Tensor2D, golden.attention_mask as tf.Tensor2D);

  test("computed in float32 it has the logits of transformers", () => {
    expect(largestDifference(logitsOf(config), golden.logits!, golden.attention_mask)).toBeLessThan(2e-4);
  });

  test("computed in bfloat16 it has them within its rounding", () => {
    const got = logitsOf(computedAs(config, { dtype: "bfloat16" }));
    const largest = golden.logits!.abs().max().dataSync()[0]!;
    const error = largestDifference(got, golden.logits!, golden.attention_mask) / largest;
    // A product is rounded to 8 bits; some thirty of them follow each other.
    expect(error).toBeLessThan(30 * 2 ** -9);
    expect(error).toBeGreaterThan(2 ** -12);
  });
});

test.each(ways)(
  "gemma3-tiny, kept and computed in bfloat16, has its logits within that rounding, %s",
  async (_, HEDDLE_JIT) => {
    process.env.HEDDLE_JIT = HEDDLE_JIT;
    const dir = fixture("models/gemma3-tiny");
    const config = computedAs(await readModelConfig(dir), { dtype: "bfloat16" });
    const weights = await loadWeights(dir, config, () => "bfloat16");
    const golden = await readGolden(dir);
    const got = jit((w: Weights, ids: tf.Tensor2D, attention: tf.Tensor2D) =>
      logits(w, config, forward(w, config, leftPadded(ids, attention)).hidden_MD).reshape([...ids.shape, -1]),
    )(weights, golden.ids as tf.Tensor2D, golden.attention_mask as tf.Tensor2D);
    const largest = golden.logits!.abs().max().dataSync()[0]!;
    const error = largestDifference(got, golden.logits!, golden.attention_mask) / largest;
    // Weights and products are rounded to 8 bits; some fifty products follow each other.
    expect(error).toBeLessThan(50 * 2 ** -9);
    expect(error).toBeGreaterThan(2 ** -12);
  },
);

describe.each(ways)("gemma2-tiny %s", (_, HEDDLE_JIT) => {
  let config: ModelConfig;
  let weights: Record<string, tf.Tensor>;
  beforeAll(async () => {
    process.env.HEDDLE_JIT = HEDDLE_JIT;
    const dir = fixture("models/gemma2-tiny");
    config = await readModelConfig(dir);
    weights = await loadWeights(dir, config);
  });

  test("a row of nothing but padding is finite", () => {
    const zeros = tf.zeros<tf.Rank.R2>([1, 12], "int32");
    const hidden = jit((w: Weights) => forward(w, config, leftPadded(zeros, zeros)).hidden_MD)(weights);
    expect(hidden.isFinite().all().dataSync()[0]).toBe(1);
  });

  test("leaves no tensor behind", () => {
    const before = tf.memory().numTensors;
    tf.tidy(() => {
      const block = leftPadded(tf.tensor2d([[7, 8]], [1, 2], "int32"), tf.ones([1, 2], "int32"));
      jit((w: Weights) => logits(w, config, forward(w, config, block).hidden_MD))(weights).dataSync();
    });
    expect(tf.memory().numTensors).toBe(before);
  });
});
