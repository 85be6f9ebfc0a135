/** Attention in blocks of queries, of rows far longer than the window. */
import { openCheckpoint } from "safetensors-ts";
import { jit, tf } from "tfjs-jit";
import { expect, test } from "vitest";
import { attention } from "../../model/attention.js";
import { planBlocks } from "../../model/attention-blocks.js";
import { MAX_SCORES } from "../../model/compute.js";
import { computedAs, parseModelConfig, readModelConfig } from "../../model/config.js";
import { hiddenStates, logits, type Weights } from "../../model/forward.js";
import { listTensors } from "../../model/scoring.js";
import { mask, sight } from "../../model/sight.js";
import { linear, listRows } from "../../model/token-list.js";
import { loadWeights } from "../../model/weights.js";
import { fixture, largestDifference } from "./golden.js";

test.each([
  // As many queries as scores fit; of all slots.
  { T: 8192, S: 8192, most: 2 ** 22, reach: null, plan: { size: 512, blocks: 16, width: 8192 } },
  // Gemma 3: blocks of at most a window.
  { T: 8192, S: 8192, most: 2 ** 22, reach: 512, plan: { size: 512, blocks: 16, width: 1023 } },
  // Gemma 2: 910 (910 + 4095) scores fit, 911 (911 + 4095) do not. 10 blocks are 9 whole ones, or fewer of 820.
  { T: 8192, S: 8192, most: 4_554_550, reach: 4096, plan: { size: 820, blocks: 10, width: 4915 } },
  { T: 8192, S: 8192, most: 2 ** 22, reach: 8, plan: { size: 256, blocks: 32, width: 263 } },
  // A window that covers what there is.
  { T: 1000, S: 1000, most: 10_000, reach: 992, plan: { size: 10, blocks: 100, width: 1000 } },
])("$T queries that reach $reach of $S slots are cut as $plan", ({ T, S, most, reach, plan }) => {
  expect(planBlocks(T, S, most, reach)).toEqual(plan);
});

test.each([
  ["gemma2-tiny", "layer by layer"],
  ["gemma3-tiny", "in a loop"],
])("8192 tokens of %s, computed %s, have the logits of transformers", async (name, how) => {
  const golden = await openCheckpoint(fixture("models/long-context.safetensors"));
  const expected = tf.tensor(await golden.readFloat32(name), [...golden.info(name).shape]);
  await golden.close();
  const config = await readModelConfig(fixture(`models/${name}`));
  const weights = await loadWeights(fixture(`models/${name}`), config);
  const T = 8192;
  const ids = Array.from({ length: T }, (_, i) => (7919 * i + 13) % 384);
  const wanted = Array.from({ length: 19 }, (_, n) => 430 + 431 * n);
  const sizes = {
    slots: T,
    queries: wanted.length,
    sharedPrefix: 0,
    size: T,
    wantedSize: wanted.length,
    inOrder: true,
  };
  const list = listTensors(listRows([{ ...linear(ids), wanted }], sizes));
  const segments = how === "in a loop" ? [{ first: 0, count: config.numHiddenLayers }] : null;
  const run = jit((w: Weights, { block, wanted }: typeof list) =>
    logits(w, config, hiddenStates(w, computedAs(config, { segments }), block, wanted)),
  );
  expect(largestDifference(run(weights, list), expected)).toBeLessThan(5e-4);
});

test.each([
  ["all slots", false],
  ["the slots of their windows", true],
])(
  "in blocks that do not divide the queries and look at %s, attention and its gradients are those of one mask",
  (_, inOrder) => {
    const [B, T, N, K, H] = [2, 1601, 4, 2, 2];
    const config = parseModelConfig("", {
      model_type: "gemma2",
      num_attention_heads: N,
      num_key_value_heads: K,
      head_dim: H,
      query_pre_attn_scalar: H,
    });
    const positions = tf.range(0, T, 1, "int32").reshape<tf.Tensor2D>([1, T]).tile([B, 1]) as tf.Tensor2D;
    const segments = tf.zeros<tf.Rank.R2>([B, T], "int32");
    const inParts = sight(
      { positions_BT: positions, segments_BT: segments },
      { positions_BS: positions, segments_BS: segments },
      N,
      50,
      { inOrder },
    );
    expect(B * N * T * T).toBeGreaterThan(MAX_SCORES);
    expect(inParts.reach).toBe(inOrder ? 50 : null);
    expect(inParts.mask_B1TS).toBeNull();
    const slot_M = tf.range(0, B * T, 1, "int32") as tf.Tensor1D;
    const layout = { token_BT: slot_M.reshape<tf.Tensor2D>([B, T]), slot_M };
    const random = (seed: number, ...shape: number[]) => tf.randomUniform(shape, -1, 1, "float32", seed);
    const run = jit((q: tf.Tensor3D, k: tf.Tensor4D, v: tf.Tensor4D, weights: tf.Tensor, isInParts: boolean) => {
      const seen = isInParts ? inParts : { ...inParts, mask_B1TS: mask(inParts.lookers, inParts) };
      const { value, grads } = tf.valueAndGrads((q, k, v) => {
        const kv = { k_BKHS: k as tf.Tensor4D, v_BKSH: v as tf.Tensor4D };
        return attention(q as tf.Tensor3D, [{ layout, sight: seen, kv }], config)
          .mul(weights)
          .sum();
      })([q, k, v]);
      return [value, ...grads];
    });
    const given = [
      random(1, B * T, N, H),
      random(2, B, K, H, T),
      random(3, B, K, T, H),
      random(4, B * T, N * H),
    ] as const;
    const at = (isInParts: boolean) =>
      run(given[0] as tf.Tensor3D, given[1] as tf.Tensor4D, given[2] as tf.Tensor4D, given[3], isInParts);
    const [inBlocks, whole] = [at(true), at(false)];
    inBlocks.forEach((tensor, i) => {
      const largest = whole[i]!.abs().max().dataSync()[0]!;
      expect(largest).toBeGreaterThan(0.1);
      expect(largestDifference(tensor, whole[i]!) / largest).toBeLessThan(2e-6);
    });
  },
);
