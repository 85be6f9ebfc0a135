import { describe, expect, test } from "vitest";
import { readPromptLogprobs, tailOf, writePromptLogprobs } from "../../teacher/prompt-logprobs.js";
import type { ScoreRequest, TokenScores } from "../../teacher/teacher.js";
import { fakeRequests, fakeScores, VOCAB_SIZE } from "./fake-model.js";

const request: ScoreRequest = { ids: [5, 7], from: 1 };
const choice = (row: Record<string, { logprob: number | null; rank?: number }>) => ({
  index: 0,
  prompt_logprobs: [null, row],
});
const read = (row: Record<string, { logprob: number | null; rank?: number }>, k: number) =>
  readPromptLogprobs(choice(row), request, k, null);

describe("readPromptLogprobs", () => {
  test("k tokens: the actual one is among them", () => {
    const scores = read({ "3": { logprob: -2, rank: 2 }, "7": { logprob: -0.5, rank: 1 } }, 2);
    expect(scores).toEqual({
      k: 2,
      ids: Int32Array.of(7, 3),
      logprobs: Float32Array.of(-0.5, -2),
      actual: Float32Array.of(-0.5),
      tail: Float32Array.of(Math.log(1 - Math.exp(-0.5) - Math.exp(-2))),
    });
  });

  test("k + 1 tokens: the actual one is extra, and not among the ids", () => {
    const scores = read(
      { "3": { logprob: -1, rank: 1 }, "4": { logprob: -2, rank: 2 }, "7": { logprob: -6, rank: 40 } },
      2,
    );
    expect([...scores.ids]).toEqual([3, 4]);
    expect([...scores.actual]).toEqual([-6]);
  });

  test("the extra token is left out even when it ties with the k-th", () => {
    const scores = read(
      { "4": { logprob: -2, rank: 2 }, "6": { logprob: -1, rank: 1 }, "7": { logprob: -2, rank: 3 } },
      2,
    );
    expect([...scores.ids]).toEqual([6, 4]);
  });

  test("equal log-probabilities come in the order of their ranks, without ranks of their ids", () => {
    const tied = { "2": { logprob: -1, rank: 2 }, "7": { logprob: -1, rank: 1 } };
    expect([...read(tied, 2).ids]).toEqual([7, 2]);
    expect([...read({ "7": { logprob: -1 }, "2": { logprob: -1 } }, 2).ids]).toEqual([2, 7]);
  });

  test("prompt_logprobs 0 gives the actual tokens alone; the tail is all of the mass", () => {
    const scores = read({ "7": { logprob: -3, rank: 9 } }, 0);
    expect(scores.ids).toHaveLength(0);
    expect([...scores.actual]).toEqual([-3]);
    expect([...scores.tail]).toEqual([0]);
  });

  test("-9999, vLLM's probability zero, stays finite and adds nothing to the mass", () => {
    const scores = read({ "3": { logprob: Math.log(0.25), rank: 1 }, "7": { logprob: -9999, rank: 2 } }, 2);
    expect([...scores.logprobs].map((x) => Math.round(x))).toEqual([-1, -9999]);
    expect(scores.tail[0]).toBeCloseTo(Math.log(0.75), 6);
  });

  test("the server's own tail is taken where there is one; -9999 is an empty tail", () => {
    const row = { "3": { logprob: -1, rank: 1 }, "7": { logprob: -2, rank: 2 } };
    const withTail = (tail: number) =>
      readPromptLogprobs({ ...choice(row), prompt_logprobs_tail: [null, tail] }, request, 2, null).tail[0];
    expect(withTail(-4)).toBe(-4);
    expect(withTail(-9999)).toBe(-Infinity);
  });

  test("k = vocabulary has no tail", () => {
    const row = { "3": { logprob: -1, rank: 1 }, "7": { logprob: -2, rank: 2 } };
    expect(readPromptLogprobs(choice(row), request, 2, 2).tail[0]).toBe(-Infinity);
  });

  test.each([
    [
      { "3": { logprob: null }, "7": { logprob: -1 } },
      2,
      "token 3 at position 1 has logprob null: the teacher's logits are not finite",
    ],
    [{ "3": { logprob: -1 } }, 1, "position 1 has no logprob for its own token 7"],
    [{ "7": { logprob: -1 } }, 3, "position 1 has 1 tokens, prompt_logprobs 3 needs 3 or 4"],
  ])("refuses %j with prompt_logprobs %i", (row, k, message) => {
    expect(() => read(row, k)).toThrow(new Error(message));
  });

  test("refuses a prompt that the server has cut, and an answer without scores", () => {
    const cut = { index: 0, prompt_logprobs: [null] };
    expect(() => readPromptLogprobs(cut, request, 1, null)).toThrow(
      new Error("prompt_logprobs has 1 positions for a prompt of 2 tokens"),
    );
    expect(() => readPromptLogprobs({ index: 0, prompt_logprobs: null }, request, 1, null)).toThrow(
      new Error("the answer has no prompt_logprobs; is this server able to score prompts?"),
    );
  });
});

describe("tailOf", () => {
  test("is the log of what is left of 1", () => {
    expect(tailOf([Math.log(0.5), Math.log(0.125)])).toBeCloseTo(Math.log(0.375), 12);
  });

  test("stays finite when rounding has pushed the sum past 1: the sum's log is at most -1e-7", () => {
    expect(tailOf([Math.log(0.6), Math.log(0.400001)])).toBeCloseTo(Math.log(1e-7), 6);
  });
});

describe("writePromptLogprobs", () => {
  const text = (scores: TokenScores, of: ScoreRequest) => `{${[...writePromptLogprobs(scores, of)].join("")}}`;

  test("writes the actual token first, as vLLM does, and ranks one outside the k after them", () => {
    const scores: TokenScores = {
      k: 2,
      ids: Int32Array.of(9, 7, 9, 3),
      logprobs: Float32Array.of(-0.5, -1, -0.25, -2),
      actual: Float32Array.of(-1, -8),
      tail: Float32Array.of(-3, -Infinity),
    };
    expect(text(scores, { ids: [5, 6, 7, 4], from: 2 })).toBe(
      '{"prompt_logprobs":[null,null,' +
        '{"7":{"logprob":-1.00000000,"rank":2},"9":{"logprob":-0.500000000,"rank":1}},' +
        '{"4":{"logprob":-8.00000000,"rank":3},"9":{"logprob":-0.250000000,"rank":1},"3":{"logprob":-2.00000000,"rank":2}}' +
        '],"prompt_logprobs_tail":[null,null,-3.00000000,-9999.00000]}',
    );
  });

  test("writes null for NaN", () => {
    const scores = { k: 0, ids: new Int32Array(), logprobs: new Float32Array(), tail: Float32Array.of(0) };
    expect(text({ ...scores, actual: Float32Array.of(NaN) }, request)).toBe(
      '{"prompt_logprobs":[null,{"7":{"logprob":null,"rank":1}}],"prompt_logprobs_tail":[null,0.00000000]}',
    );
  });

  test("nine digits are enough for every float32, tiny ones too", () => {
    const values = [-1e-45, -1.17549435e-38, -3.3333333e-7, -0.1, -16777215, -9998.9995];
    const scores = { k: 0, ids: new Int32Array(), logprobs: new Float32Array(), tail: new Float32Array(values.length) };
    const actual = Float32Array.from(values, (value) => Math.max(value, -9999));
    const one = { ids: [0, ...values.map(() => 7)], from: 1 };
    const wire = { index: 0, ...(JSON.parse(text({ ...scores, actual }, one)) as object) };
    expect(readPromptLogprobs(wire, one, 0, null).actual).toEqual(actual);
  });

  test.each([0, 1, 4, VOCAB_SIZE])("is read back with the same bits for k = %i", (k) => {
    for (const one of fakeRequests(12)) {
      const scores = fakeScores(one, k);
      const wire = { index: 0, ...(JSON.parse(text(scores, one)) as object) };
      expect(readPromptLogprobs(wire, one, k, VOCAB_SIZE)).toEqual(scores);
    }
  });
});
