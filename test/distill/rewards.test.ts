import { describe, expect, test } from "vitest";
import { exactMatch, leaveOneOut, logRatio } from "../../distill/rewards.js";

describe("exactMatch", () => {
  test("is 1 for the answer, blanks around either aside", () => {
    expect(exactMatch(" 42\n", "42")).toBe(1);
    expect(exactMatch("42", "\t42 ")).toBe(1);
  });

  test("is 0 for anything else", () => {
    expect(exactMatch("4 2", "42")).toBe(0);
    expect(exactMatch("42.0", "42")).toBe(0);
    expect(exactMatch("", "42")).toBe(0);
  });
});

describe("logRatio", () => {
  test("sums (-1 + 2) + (-3 + 2.5) = 0.5", () => {
    expect(logRatio([-1, -3], [-2, -2.5])).toBeCloseTo(0.5, 12);
  });

  test("is 0 where policy and anchor agree, and where nothing was said", () => {
    expect(logRatio([-1, -3], [-1, -3])).toBe(0);
    expect(logRatio([], [])).toBe(0);
  });

  test("is negative where the anchor likes the completion better than the policy does", () => {
    expect(logRatio([-2], [-1])).toBe(-1);
  });

  test("refuses scores of two different completions", () => {
    expect(() => logRatio([-1], [-1, -2])).toThrow(
      new RangeError("logRatio: the policy scored 1 tokens, the anchor 2: score the same completion"),
    );
  });
});

describe("leaveOneOut", () => {
  test("subtracts the mean of the prompt's other samples: 1 - 1/3, 0 - 2/3, 1 - 1/3, 0 - 2/3", () => {
    expect(leaveOneOut([1, 0, 1, 0], 4)).toEqual(new Float32Array([2 / 3, -2 / 3, 2 / 3, -2 / 3]));
  });

  test("looks at one prompt at a time", () => {
    expect(leaveOneOut(new Float32Array([1, 0, 5, 5]), 2)).toEqual(new Float32Array([1, -1, 0, 0]));
  });

  test("refuses a single sample, and rewards that are no whole number of prompts", () => {
    expect(() => leaveOneOut([1, 0], 1)).toThrow(
      new RangeError("leaveOneOut: a baseline of the other samples needs 2 or more samples a prompt, got 1"),
    );
    expect(() => leaveOneOut([1, 0, 1], 2)).toThrow(
      new RangeError("leaveOneOut: 3 rewards are no multiple of 2 samples a prompt"),
    );
  });
});
