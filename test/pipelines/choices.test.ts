import { expect, test } from "vitest";
import { judge } from "../../pipelines/choices.js";

test("acc takes the likeliest, acc_norm the likeliest by character, acc_bytes by byte, leading blanks not counted", () => {
  // By character -2, -0.75, -1.5; by byte -2, -0.75, -0.5: é is two bytes, € three.
  expect(judge([" x", " abcd", " é€"], 1, [-2, -3, -3])).toEqual({
    loglikelihoods: [-2, -3, -3],
    choice: 0,
    choice_norm: 1,
    choice_bytes: 2,
    acc: 0,
    acc_norm: 1,
    acc_bytes: 0,
  });
});

test("an answer is a choice or its index; of equals the first counts", () => {
  expect(judge(["a", "b"], "b", [-1, -1])).toMatchObject({ choice: 0, acc: 0 });
  expect(judge(["a", "b"], "a", [-1, -1])).toMatchObject({ choice: 0, acc: 1 });
});
