/** Sequences as lists of tokens, by hand: prompts [1 2 3] and [1 2 4 5], which share the tokens [1 2]. */
import { describe, expect, test } from "vitest";
import {
  byCompletion,
  listPrompts,
  listSequences,
  paddedLength,
  sizesOf,
  sizesOfBatch,
  untilStop,
} from "../../model/batch.js";

const prompts = [
  [1, 2, 3],
  [1, 2, 4, 5],
];

describe("paddedLength", () => {
  test("goes down from the limit by quarters of its halves, and not below what is short", () => {
    const lengths = [64, 49, 48, 33, 32, 25, 24, 17, 16, 1].map((longest) => paddedLength(longest, 64));
    expect(lengths).toEqual([64, 64, 48, 48, 32, 32, 24, 24, 16, 16]);
  });

  test("a limit need not be a power of two", () => {
    expect([38, 30, 28, 20, 19, 3].map((longest) => paddedLength(longest, 38))).toEqual([38, 38, 29, 29, 19, 10]);
  });
});

describe("sizesOf", () => {
  test("the room for prompts is four standard deviations above the mean batch, the shared prefix once", () => {
    // 100 prompts of 10 and 100 of 12 tokens, of which 4 are shared: mean 11, variance 1. A batch of 25:
    // 4 + 25 (11 - 4) + 4 sqrt(25) = 199.
    const many = Array.from({ length: 200 }, (_, i) => [7, 7, 7, 7, ...new Array<number>(i % 2 ? 6 : 8).fill(i)]);
    const sizes = sizesOf(many, { rows: 25, samples: 2, maxNewTokens: 5 });
    const expected = { longestPrompt: 12, sharedPrefix: 4, promptTokens: 199 };
    expect(sizes).toEqual({ rows: 25, samples: 2, maxNewTokens: 5, ...expected });
  });

  test("never more room than all rows at their longest", () => {
    expect(sizesOf(prompts, { rows: 2, samples: 1, maxNewTokens: 4 }).promptTokens).toBe(2 + 2 * 2);
  });

  test("prompts that are all the same are all prefix", () => {
    const sizes = sizesOf([[1, 2, 3]], { rows: 4, samples: 1, maxNewTokens: 2 });
    expect([sizes.sharedPrefix, sizes.promptTokens]).toEqual([3, 3]);
  });
});

describe("sizesOfBatch", () => {
  const rowsOf = (...lengths: number[]) => lengths.map((length) => Array.from({ length }, (_, i) => i));

  test("rounds the room for all tokens up to 1, 3/4, 1/2, ... of rows that are as long as the longest, rounded", () => {
    const limits = { likely: 8192, limit: 8192, sharedPrefix: 0 };
    // Rows of 400 tokens get 512 slots: 3 of them are 1536, of which 768 is a half.
    expect(sizesOfBatch(rowsOf(400, 200, 100), limits)).toEqual({
      rows: 3,
      samples: 1,
      maxNewTokens: 1,
      longestPrompt: 8192,
      sharedPrefix: 0,
      promptTokens: 768,
    });
    expect(sizesOfBatch(rowsOf(400, 400, 100), limits).promptTokens).toBe(1152);
    // Where 50 tokens are as much as there is likely to be, rows get as many slots; longer ones are possible.
    expect(sizesOfBatch(rowsOf(40, 40), { ...limits, likely: 50 })).toMatchObject({
      longestPrompt: 50,
      promptTokens: 100,
    });
    expect(sizesOfBatch(rowsOf(60, 40), { ...limits, likely: 50 })).toMatchObject({
      longestPrompt: 8192,
      promptTokens: 128,
    });
  });

  test("takes no more for what all begin with than it is told, nor than is so", () => {
    const of = (sharedPrefix: number, ...rows: number[][]) =>
      sizesOfBatch(rows, { likely: 64, limit: 64, sharedPrefix }).sharedPrefix;
    expect([of(2, [1, 2, 3, 4], [1, 2, 3, 5]), of(2, [1, 2, 4], [1, 3])]).toEqual([2, 1]);
  });

  test("leads to few programs: batches of 8 rows of up to 1000 tokens have a handful of shapes", () => {
    let seed = 1;
    const random = () => {
      seed = (seed * 48271) % 2147483647;
      return seed / 2147483647;
    };
    const shapes = Array.from({ length: 200 }, () => {
      const rows = rowsOf(...Array.from({ length: 8 }, () => 1 + Math.floor(1000 * random())));
      const list = listPrompts(rows, sizesOfBatch(rows, { likely: 1000, limit: 8192, sharedPrefix: 0 }));
      expect(list.ids.length).toBeGreaterThanOrEqual(rows.flat().length);
      return `${list.ids.length} ${list.layout.slots}`;
    });
    expect(new Set(shapes).size).toBeLessThanOrEqual(8);
  });
});

describe("listPrompts", () => {
  test("the shared prefix stands in the list once and in every row of the grid", () => {
    const sizes = sizesOf(prompts, { rows: 2, samples: 1, maxNewTokens: 4 });
    expect(listPrompts(prompts, sizes)).toEqual({
      ids: Int32Array.of(1, 2, 3, 4, 5, 0),
      positions: Int32Array.of(0, 1, 2, 2, 3, 0),
      segments: Int32Array.of(0, 0, 0, 0, 0, 0),
      layout: {
        rows: 2,
        slots: 4,
        tokenOfSlot: Int32Array.of(0, 1, 2, -1, 0, 1, 3, 4),
        slotOfToken: Int32Array.of(0, 1, 2, 6, 7, 0),
        inOrder: true,
      },
      wanted: {
        tokens: Int32Array.of(2, 4),
        layout: {
          rows: 2,
          slots: 1,
          tokenOfSlot: Int32Array.of(0, 1),
          slotOfToken: Int32Array.of(0, 1),
          inOrder: false,
        },
      },
    });
  });

  test("a batch that needs more room than is likely gets as much as any", () => {
    const many = [...Array.from({ length: 399 }, (_, i) => [9, i]), [9, 0, 1, 2, 3, 4, 5, 6, 7, 8]];
    const sizes = sizesOf(many, { rows: 2, samples: 1, maxNewTokens: 1 });
    expect(sizes.promptTokens).toBe(6); // 1 + 2 * 1.02 + 4 sqrt(2 * 0.16) = 5.3
    const longest = many[399]!;
    expect(listPrompts([longest, longest], sizes).ids.length).toBe(1 + 2 * 9);
    expect(
      listPrompts(
        [
          [9, 1],
          [9, 2],
        ],
        sizes,
      ).ids.length,
    ).toBe(6);
  });
});

describe("a run over prompts of 1 to 4000 tokens, most of them short,", () => {
  // Lengths as 4000^u for u in even steps from 0 to 1: the median is 63.
  const many = Array.from({ length: 512 }, (_, i) => new Array<number>(Math.round(4000 ** (i / 511))).fill(i));
  const sizes = sizesOf(many, { rows: 8, samples: 1, maxNewTokens: 1 });
  const shapesOf = (order: readonly (readonly number[])[]) =>
    Array.from({ length: 64 }, (_, b) => {
      const batch = order.slice(8 * b, 8 * b + 8);
      const { ids, layout } = listPrompts(batch, sizes);
      return { room: ids.length, slots: layout.slots, needed: batch.reduce((sum, { length }) => sum + length, 0) };
    });
  const programs = (shapes: readonly { room: number; slots: number }[]) =>
    new Set(shapes.map(({ room, slots }) => `${room} ${slots}`)).size;

  test("compiles one or two programs for each padded length where the rows are sorted", () => {
    const shapes = shapesOf(many);
    // 4000, 3000, 2000, 1500, 1000, 750, 500, 375, 250, 188, and 125, which is short.
    expect(new Set(shapes.map(({ slots }) => slots)).size).toBe(11);
    // Those of one length need more than what is likely of a random batch, or do not.
    expect(programs(shapes)).toBe(12);
    // The first 40 batches, of short prompts, get what they have slots for.
    for (const { room, needed } of shapes.slice(40)) expect(room).toBeLessThan(2 * needed);
    expect(shapes[0]!.room).toBe(8 * 125);
  });

  test("compiles fewer where they are not", () => {
    const mixed = Array.from({ length: 512 }, (_, i) => many[(i * 205) % 512]!);
    expect(programs(shapesOf(mixed))).toBeLessThan(12);
  });
});

describe("listSequences", () => {
  const sequences = [
    { prompt: prompts[0]!, completions: [[10, 11], [12]] },
    { prompt: prompts[1]!, completions: [[13], [14, 15, 16]] },
  ];
  const batch = listSequences(sequences, sizesOf(prompts, { rows: 2, samples: 2, maxNewTokens: 4 }));

  test("completions share their prompt and are segments of their own; a last token is left out", () => {
    const { tokens } = batch;
    // Room: 6 for prompts, and of the 16 tokens that the completions may have 8 (two quarters), less one each.
    expect(tokens.ids).toEqual(Int32Array.of(1, 2, 3, 10, 4, 5, 14, 15, 0, 0));
    expect(tokens.positions).toEqual(Int32Array.of(0, 1, 2, 3, 2, 3, 4, 5, 0, 0));
    expect(tokens.segments).toEqual(Int32Array.of(0, 0, 0, 1, 0, 0, 2, 2, 0, 0));
    const { slots, tokenOfSlot, inOrder } = tokens.layout;
    expect([slots, inOrder]).toEqual([10, false]);
    expect([...tokenOfSlot.subarray(0, 10)]).toEqual([0, 1, 2, 3, -1, -1, -1, -1, -1, -1]);
    expect([...tokenOfSlot.subarray(10)]).toEqual([0, 1, 4, 5, 6, 7, -1, -1, -1, -1]);
  });

  test("what is wanted predicts the completions' tokens", () => {
    // 10 and 12 follow the prompt's last token, 3; 11 follows 10. 13 and 14 follow 5; 15 follows 14, 16 follows 15.
    const { wanted, ids } = batch.tokens;
    expect([...wanted.tokens].slice(0, 7).map((token) => ids[token])).toEqual([3, 10, 3, 5, 5, 14, 15]);
    expect([...batch.targets]).toEqual([10, 11, 12, 13, 14, 15, 16, 0]);
    expect([...batch.counted]).toEqual([1, 1, 1, 1, 1, 1, 1, 0]);
    expect([...wanted.layout.tokenOfSlot.subarray(0, 4)]).toEqual([0, 1, 2, -1]);
    expect([...wanted.layout.tokenOfSlot.subarray(8, 13)]).toEqual([3, 4, 5, 6, -1]);
  });

  test("values of the wanted tokens, completion by completion", () => {
    const values = Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8);
    expect(byCompletion(batch, values).map((own) => [...own])).toEqual([[1, 2], [3], [4], [5, 6, 7]]);
  });
});

test("untilStop keeps the first stop token and nothing after it", () => {
  expect(untilStop([4, 1, 5, 1], [1, 2])).toEqual([4, 1]);
  expect(untilStop([4, 5], [1, 2])).toEqual([4, 5]);
});
