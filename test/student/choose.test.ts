/** The choice of a token, for vocabularies that do and do not fill whole blocks. */
import { randomUniform, tf } from "tfjs-jit";
import { describe, expect, test } from "vitest";
import { type Choice, chooseTokens, firstColumn, numbersPerToken } from "../../student/choose.js";

const choice = (temperature: number, changes: Partial<Choice> = {}): Choice => ({
  temperature: temperature === 0 ? 0 : tf.scalar(temperature),
  topK: 0,
  topP: 1,
  logprobTemperature: 1,
  ...changes,
});

/** Tokens of `rows` rows that all have these logits. */
function draw(logits: number[], rows: number, how: Choice, seed = 1) {
  const logits_MV = tf.tensor2d([logits]).tile<tf.Tensor2D>([rows, 1]);
  const uniform_MX = randomUniform(seed, 0, [rows, numbersPerToken(logits.length)]) as tf.Tensor2D;
  const { id_M, logprob_M } = chooseTokens(logits_MV, uniform_MX, how);
  return { ids: [...id_M.dataSync()], logprobs: [...logprob_M.dataSync()] };
}

test("numbersPerToken is one for each block and one for each token of a block", () => {
  // 256000 = 500 blocks of 512; 384 = 12 of 32; 5 is 2 blocks of 4, the second filled up with 3.
  expect([256000, 384, 5, 2, 1].map(numbersPerToken)).toEqual([1012, 44, 6, 3, 2]);
});

test("firstColumn is the first that is true, or the number of columns", () => {
  const is = tf.tensor2d(
    [
      [0, 1, 1],
      [1, 0, 0],
      [0, 0, 0],
    ],
    [3, 3],
    "bool",
  );
  expect([...firstColumn(is).dataSync()]).toEqual([1, 0, 3]);
});

describe("4000 tokens of which token v has (0, 1, 2, 3, 0, 4) / 10 of the probability", () => {
  // Blocks of 4 tokens: the first has 6/10 of it, the second, with two that fill it up, 4/10.
  const logits = [0, 1, 2, 3, 0, 4].map(Math.log);

  test("come as often", () => {
    const { ids } = draw(logits, 4000, choice(1));
    const counts = logits.map((_, v) => ids.filter((id) => id === v).length);
    // 400 v with a standard deviation of at most 31.
    for (const [v, share] of [0, 1, 2, 3, 0, 4].entries())
      expect(Math.abs(counts[v]! - 400 * share), `token ${v}`).toBeLessThan(share === 0 ? 1 : 124);
  });

  test("come as often as their squares at temperature 1/2", () => {
    const { ids } = draw(logits, 3000, choice(0.5));
    const counts = logits.map((_, v) => ids.filter((id) => id === v).length);
    // Of 30: (0, 1, 4, 9, 0, 16).
    for (const [v, share] of [0, 1, 4, 9, 0, 16].entries())
      expect(Math.abs(counts[v]! - 100 * share), `token ${v}`).toBeLessThan(share === 0 ? 1 : 110);
  });
});

test("numbers of 0 and just below 1 choose a token that may be chosen", () => {
  const logits_MV = tf.tensor2d([[-Infinity, -Infinity, -Infinity, -Infinity, -Infinity, 2]]);
  for (const u of [0, 1 - 2 ** -24]) {
    const { id_M } = chooseTokens(logits_MV, tf.fill([1, numbersPerToken(6)], u), choice(1));
    expect([...id_M.dataSync()]).toEqual([5]);
  }
});

test("logprobs are those at their own temperature, whatever was ruled out", () => {
  const logits = [1, 2, 3].map(Math.log);
  const at = (temperature: number) => ({
    logprobTemperature: temperature === 1 ? (1 as const) : tf.scalar(temperature),
  });
  // Squares of 1/6, 2/6, 3/6 are as 1, 4, 9; token 2 is the likeliest.
  expect(draw(logits, 1, choice(0, at(1))).logprobs[0]).toBeCloseTo(Math.log(3 / 6), 6);
  expect(draw(logits, 1, choice(0, at(0.5))).logprobs[0]).toBeCloseTo(Math.log(9 / 14), 6);
  expect(draw(logits, 1, choice(2, { ...at(0.5), topK: 1 })).logprobs[0]).toBeCloseTo(Math.log(9 / 14), 6);
});
