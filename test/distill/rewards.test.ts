import { describe, expect, test } from "vitest";
import { anchoredReward, exactMatch, leaveOneOut } from "../../distill/rewards.js";

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

describe("anchoredReward", () => {
  test("is 1 - 0.1 * ((-1 + 2) + (-3 + 2.5)) = 0.95", () => {
    expect(anchoredReward(1, [-1, -3], [-2, -2.5], 0.1)).toBeCloseTo(0.95, 12);
  });

  test("is the reward where policy and anchor agree, where nothing was said, and at betaKl 0", () => {
    expect(anchoredReward(1, [-1, -3], [-1, -3], 0.1)).toBe(1);
    expect(anchoredReward(1, [], [], 0.1)).toBe(1);
    expect(anchoredReward(1, [-1], [-9], 0)).toBe(1);
  });

  test("rises where the anchor likes the completion better than the policy does", () => {
    expect(anchoredReward(0, [-2], [-1], 0.5)).toBe(0.5);
  });

  test("refuses scores of two different completions", () => {
    expect(() => anchoredReward(1, [-1], [-1, -2], 0.1)).toThrow(
      new RangeError("anchoredReward: the policy scored 1 tokens, the anchor 2: score the same completion"),
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
