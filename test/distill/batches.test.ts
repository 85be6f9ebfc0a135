import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { deriveSeed, planBatch } from "../../distill/batches.js";

const numbers = (count: number) => Array.from({ length: count }, (_, i) => i);

describe("planBatch", () => {
  test("gives these rows for seed 0, today and always: runs are resumed across versions", () => {
    const plan = { seed: 0, stage: "distill", rows: 10, size: 4 };
    expect([1, 2, 3].map((step) => planBatch({ ...plan, step }))).toEqual([
      [8, 3, 2, 7],
      [0, 1, 6, 4],
      [5, 9, 6, 3],
    ]);
  });

  test("walks every row once an epoch, in a new order each epoch", () => {
    const size = fc.integer({ min: 1, max: 12 });
    fc.assert(
      fc.property(fc.integer(), fc.integer({ min: 1, max: 40 }), size, (seed, rows, size) => {
        // `rows` batches of `size` are exactly `size` epochs, whether or not a batch straddles two.
        const walk = numbers(rows).flatMap((i) => planBatch({ seed, stage: "rl", step: i + 1, rows, size }));
        for (const epoch of numbers(size)) {
          const visited = walk.slice(epoch * rows, (epoch + 1) * rows);
          expect(visited.sort((a, b) => a - b)).toEqual(numbers(rows));
        }
      }),
      { numRuns: 50 },
    );
    const [first, second] = [1, 2].map((step) => planBatch({ seed: 1, stage: "rl", step, rows: 100, size: 100 }));
    expect(first).not.toEqual(second);
    expect(first).not.toEqual(numbers(100));
  });

  test("gives a step the same rows whichever steps were asked before", () => {
    const plan = { seed: 5, stage: "distill", rows: 7, size: 3 };
    const forward = numbers(20).map((i) => planBatch({ ...plan, step: i + 1 }));
    const backward = numbers(20).map((i) => planBatch({ ...plan, step: 20 - i }));
    expect(backward.reverse()).toEqual(forward);
  });

  test("gives each seed and each stage an order of its own", () => {
    const plan = { seed: 0, stage: "iteration-1/run-1", step: 1, rows: 1000, size: 8 };
    expect(planBatch({ ...plan, stage: "iteration-1/run-2" })).not.toEqual(planBatch(plan));
    expect(planBatch({ ...plan, seed: 1 })).not.toEqual(planBatch(plan));
  });

  test("fills a batch that is larger than the data by going round again", () => {
    const batch = planBatch({ seed: 0, stage: "sft", step: 3, rows: 2, size: 5 });
    expect(batch).toHaveLength(5);
    expect(new Set(batch)).toEqual(new Set([0, 1]));
  });

  test("finds a late step of a large data set at once", () => {
    const batch = planBatch({ seed: 0, stage: "sft", step: 10_000_000, rows: 100_000, size: 64 });
    expect(new Set(batch).size).toBe(64);
  });
});

describe("deriveSeed", () => {
  test("is this int32 for these words", () => {
    // FNV-1a and fmix32 of the bytes of [0,"distill","sample",12] and [0], computed apart from this code.
    expect(deriveSeed(0, "distill", "sample", 12)).toBe(2126274855);
    expect(deriveSeed(0)).toBe(1896170017);
  });

  test("tells text from numbers and one split from another", () => {
    const seeds = [
      deriveSeed(0, "1"),
      deriveSeed(0, 1),
      deriveSeed(0, "a", "b"),
      deriveSeed(0, "ab"),
      deriveSeed(1, 0),
    ];
    expect(new Set(seeds).size).toBe(seeds.length);
  });

  test("sets half of the bits for neighbouring steps", () => {
    const bits = numbers(1000).map((step) => {
      const difference = deriveSeed(0, "rl", step) ^ deriveSeed(0, "rl", step + 1);
      return [...(difference >>> 0).toString(2)].filter((bit) => bit === "1").length;
    });
    const mean = bits.reduce((sum, count) => sum + count) / bits.length;
    expect(mean).toBeGreaterThan(15.5);
    expect(mean).toBeLessThan(16.5);
  });

  test("is an int32", () => {
    fc.assert(
      fc.property(fc.integer(), fc.string(), (seed, word) => {
        const derived = deriveSeed(seed, word);
        expect(derived).toBe(derived | 0);
      }),
    );
  });
});
