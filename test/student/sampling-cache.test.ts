/** What a cache keeps, by hand: a window of 3 tokens, prompts of 2 and of 5. */
import { tf } from "tfjs-jit";
import { expect, test } from "vitest";
import { listPrompts, sizesOf } from "../../model/batch.js";
import type { ModelConfig } from "../../model/config.js";
import { listTensors } from "../../model/scoring.js";
import type { Keys } from "../../model/sight.js";
import { extendCache, ownSlots, promptsOf, slotsFor } from "../../student/sampling-cache.js";

const config = {
  slidingWindow: 3,
  layerTypes: ["sliding_attention", "full_attention"],
} as unknown as ModelConfig;

const keysOf = ({ positions_BS, segments_BS }: Keys) => [positions_BS.arraySync(), segments_BS.arraySync()];

test("sliding layers keep the last window - 1 tokens of a prompt", () => {
  const prompts = [
    [7, 8],
    [7, 8, 9, 10, 11],
  ];
  const { block } = listTensors(listPrompts(prompts, sizesOf(prompts, { rows: 2, samples: 1, maxNewTokens: 4 })));
  // The value of row b's slot t is 10 b + t.
  const v_BKSH = tf.tensor4d([0, 1, 2, 3, 4, 10, 11, 12, 13, 14], [2, 1, 5, 1]);
  const kv = { v_BKSH, k_BKHS: v_BKSH.reshape<tf.Tensor4D>([2, 1, 1, 5]) };
  const { cache, keys } = promptsOf([kv, kv], block, config);
  expect(cache.map((own) => [...own.v_BKSH.dataSync()])).toEqual([[0, 1, 13, 14], [...v_BKSH.dataSync()]]);
  expect(cache.map((own) => own.k_BKHS.shape)).toEqual([
    [2, 1, 1, 2],
    [2, 1, 1, 5],
  ]);
  expect(keysOf(keys.sliding_attention)).toEqual([
    [
      [0, 1],
      [3, 4],
    ],
    [
      [0, 0],
      [0, 0],
    ],
  ]);
  expect(keysOf(keys.full_attention)[1]).toEqual([
    [0, 0, -1, -1, -1],
    [0, 0, 0, 0, 0],
  ]);
});

test("prompts that a window holds stay as they are, shorter ones with padding before them", () => {
  const prompts = [[7], [7, 8, 9]];
  const { block } = listTensors(listPrompts(prompts, sizesOf(prompts, { rows: 2, samples: 1, maxNewTokens: 4 })));
  const { keys } = promptsOf([], block, config);
  // The prompt of one token has position 0 in the second of two slots.
  expect(keysOf(keys.sliding_attention)).toEqual([
    [
      [-1, 0],
      [1, 2],
    ],
    [
      [-1, 0],
      [0, 0],
    ],
  ]);
  const wide = promptsOf([], block, { ...config, slidingWindow: 4 });
  expect(wide.keys.sliding_attention).toBe(wide.keys.full_attention);
});

test("sliding layers have no more slots than a window", () => {
  expect(slotsFor(2, config)).toEqual({ full_attention: 2, sliding_attention: 2 });
  expect(slotsFor(9, config)).toEqual({ full_attention: 9, sliding_attention: 3 });
});

test("a ring holds the last tokens: token n in slot n mod 3", () => {
  // After a prompt of 10 tokens.
  const slots = (n: number) => ownSlots(tf.tensor1d([10], "int32"), tf.scalar(n, "int32"), slotsFor(5, config));
  const ring = (n: number) => {
    const { positions_BS, segments_BS } = slots(n).sliding_attention.keys;
    return { positions: [...positions_BS.dataSync()], segments: [...segments_BS.dataSync()] };
  };
  expect([0, 2, 4].map(ring)).toEqual([
    { positions: [10, 8, 9], segments: [0, -1, -1] },
    { positions: [10, 11, 12], segments: [0, 0, 0] },
    { positions: [13, 14, 12], segments: [0, 0, 0] },
  ]);
  expect((slots(4).sliding_attention.start as tf.Scalar).dataSync()[0]).toBe(1);
  expect(keysOf(slots(1).full_attention.keys)).toEqual([[[10, 11, 7, 8, 9]], [[0, 0, -1, -1, -1]]]);
  expect((slots(4).full_attention.start as tf.Scalar).dataSync()[0]).toBe(4);
});

test("more slots are added at the end, to a ring only up to a window", () => {
  const kv = { k_BKHS: tf.ones<tf.Rank.R4>([1, 1, 1, 2]), v_BKSH: tf.ones<tf.Rank.R4>([1, 1, 2, 1]) };
  const extended = extendCache([kv, kv], slotsFor(4, config), config);
  expect(extended.map((own) => [...own.k_BKHS.dataSync()])).toEqual([
    [1, 1, 0],
    [1, 1, 0, 0],
  ]);
  expect(extended.map((own) => [...own.v_BKSH.dataSync()])).toEqual([
    [1, 1, 0],
    [1, 1, 0, 0],
  ]);
});
