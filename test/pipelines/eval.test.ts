/** `heddle eval`: its task in this process, and the command as a user runs it. */
import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { openModel } from "../../model/load.js";
import { readChoices } from "../../pipelines/encoded-rows.js";
import { run } from "../../pipelines/tasks/eval.js";
import { run as runGenerate } from "../../pipelines/tasks/generate.js";
import { run as runScore } from "../../pipelines/tasks/score.js";
import type { ScoreRequest } from "../../teacher/teacher.js";
import { fixture } from "../model/golden.js";
import { heddle, readJsonl, rowsFile, taskContext } from "./command.js";

const model = fixture("arithmetic/teacher");
const options = { model, system: "error", maxNewTokens: 8, temperature: 0, batchSize: 4 } as const;

// Op by op, which needs no compiling: that jit gives the same is a test of its own.
beforeAll(() => void vi.stubEnv("HEDDLE_JIT", "0"));

describe("the result", () => {
  test("3 of 4 right is 0.75 with a standard error of sqrt(0.75 * 0.25 / 3)", async () => {
    const rows = [
      { prompt: "1+1=", answer: "2" },
      { prompt: "1+1=", answer: " 2\n" },
      { messages: [{ role: "user", content: "1+1=" }], answer: "2" },
      { prompt: "1+1=", answer: "3" },
    ];
    const { data } = rowsFile(rows);
    expect(await run({ ...options, data }, taskContext())).toEqual({
      accuracy: 0.75,
      count: 4,
      standard_error: expect.closeTo(0.25, 10),
    });
  });

  test("is that of the completions which generate writes, sampled ones too", async () => {
    const lines = readFileSync(fixture("arithmetic/test.jsonl"), "utf8").trimEnd().split("\n").slice(0, 30);
    const { data, out } = rowsFile(lines.map((line) => JSON.parse(line) as object));
    for (const temperature of [0, 0.7]) {
      const sampling = { ...options, temperature, batchSize: 30, data };
      await runGenerate({ ...sampling, out, topK: 0, topP: 1, seed: 0 }, taskContext());
      const right = readJsonl<{ completion: string; answer: string }>(out).filter(
        (row) => row.completion === row.answer,
      );
      expect(await run(sampling, taskContext())).toMatchObject({
        accuracy: right.length / 30,
        count: 30,
      });
    }
  });
});

describe("is refused for", () => {
  test.each<[string, object, string]>([
    ["a row without an answer", { prompt: "1+1=" }, "FILE:2: answer: expected the text that is right, got none"],
    ["an answer that is no text", { prompt: "1+1=", answer: 2 }, "FILE:2: answer: expected text, got 2"],
    ["ids with such an answer", { ids: [2, 3], answer: 2 }, "FILE:2: answer: expected the text that is right, got 2"],
  ])("%s", async (_, row, message) => {
    const { data } = rowsFile([{ prompt: "1+1=", answer: "2" }, row]);
    await expect(run({ ...options, data }, taskContext())).rejects.toThrow(
      expect.objectContaining({ name: "DataError", message: message.replace("FILE", data) }),
    );
  });

  test("a model without a tokenizer", async () => {
    const { data } = rowsFile([{ ids: [2, 3], answer: "2" }]);
    const dir = fixture("models/gemma2-tiny");
    await expect(run({ ...options, model: dir, data }, taskContext())).rejects.toThrow(
      `${dir}: no tokenizer.json, needed to compare completions with answers`,
    );
  });
});

describe("choices", () => {
  const sums = [
    { prompt: "1+1=", choices: ["2", "3"], answer: "2" },
    { prompt: "7*8=", choices: ["54", "56", "58"], answer: 1 },
    { messages: [{ role: "user", content: "20+3=" }], choices: ["23", "24"], answer: 1 },
  ];

  test("are judged by their likelihood after the prompt, as score gives it", async () => {
    const { data, out } = rowsFile(sums);
    const result = await run({ ...options, data, out }, taskContext());
    expect(result).toEqual({
      acc: expect.closeTo(2 / 3, 10),
      acc_norm: expect.closeTo(2 / 3, 10),
      acc_bytes: expect.closeTo(2 / 3, 10),
      count: 3,
      // sqrt(2/3 * 1/3 / 2)
      acc_stderr: expect.closeTo(1 / 3, 10),
      acc_norm_stderr: expect.closeTo(1 / 3, 10),
      acc_bytes_stderr: expect.closeTo(1 / 3, 10),
    });
    type Line = { loglikelihoods: number[]; choice: number; acc: number };
    const lines = readJsonl<Line>(out);
    expect(lines.map(({ choice, acc }) => [choice, acc])).toEqual([
      [0, 1],
      [1, 1],
      [0, 0],
    ]);
    // The template ends the prompt with a newline, which as a blank counts with the choice.
    const { chat } = await openModel(model);
    const text = chat.renderPrompt([{ role: "user", content: "7*8=" }]);
    const prompt = await chat.textIds(text.trimEnd());
    const rows = await Promise.all(sums[1]!.choices.map(async (one) => ({ ids: await chat.textIds(text + one) })));
    const scored = rowsFile(rows);
    await runScore({ model, data: scored.data, out, batchSize: 3, system: "error" }, taskContext());
    readJsonl<{ logprobs: number[] }>(out).forEach(({ logprobs }, i) => {
      const sum = logprobs.slice(prompt.length).reduce((a, b) => a + b, 0);
      expect(Math.abs(sum - lines[1]!.loglikelihoods[i]!)).toBeLessThan(1e-4);
    });
  });

  test("follow a plain text where told so: blanks at its end belong to the choice", async () => {
    const { data, out } = rowsFile([
      { prompt: "1+1=", choices: [" 2", " 3"], answer: 0 },
      { prompt: "1+1= ", choices: ["2", "3"], answer: 0 },
    ]);
    await run({ ...options, data, out, ignoreChatTemplate: true }, taskContext());
    const [first, second] = readJsonl<{ loglikelihoods: number[] }>(out);
    expect(second!.loglikelihoods).toEqual(first!.loglikelihoods);
  });

  test("a message and a choice that spell a control token are text, unless told otherwise", async () => {
    const folder = await openModel(model);
    const row = { prompt: "1<end_of_turn>", choices: ["2<eos>", "3"], answer: 0 };
    const read = async (allowControlTokens: boolean) => {
      const text = JSON.stringify(row);
      const [encoded] = await readChoices(folder, { data: "rows", text, system: "error", allowControlTokens });
      const [{ ids, from }] = encoded!.choices as [ScoreRequest];
      const ends = (some: readonly number[]) => some.filter((id) => id === 6 || id === 1);
      expect(await folder.tokenizer!.decode(ids.slice(from))).toBe(allowControlTokens ? "\n2" : "\n2<eos>");
      return [ends(ids.slice(0, from)), ends(ids.slice(from))];
    };
    // The turn of the user ends once.
    expect(await read(false)).toEqual([[6], []]);
    expect(await read(true)).toEqual([[6, 6], [1]]);
  });

  test.each<[string, object, string]>([
    ["one choice", { prompt: "x", choices: ["a"], answer: "a" }, "choices: expected two or more, got 1"],
    ["no list", { prompt: "x", choices: "ab", answer: "a" }, 'choices: expected a list of texts, got "ab"'],
    [
      "an empty choice",
      { prompt: "x", choices: ["a", ""], answer: "a" },
      'choices[1]: expected a text of at least one character, got ""',
    ],
    [
      "an answer that is no choice",
      { prompt: "x", choices: ["a", "b"], answer: "c" },
      'answer: expected one of the choices, or its index from 0 to 1, got "c"',
    ],
    [
      "an index too large",
      { prompt: "x", choices: ["a", "b"], answer: 2 },
      "answer: expected one of the choices, or its index from 0 to 1, got 2",
    ],
    [
      "no answer",
      { prompt: "x", choices: ["a", "b"] },
      "answer: expected one of the choices, or its index from 0 to 1, got nothing",
    ],
    ["ids", { ids: [2], choices: ["a", "b"], answer: 0 }, 'expected "prompt" or "messages", got ids, choices, answer'],
    [
      "no choices, which others have",
      { prompt: "x", answer: "a" },
      "choices: expected a list of texts, as other rows have, got none",
    ],
    [
      "too much text",
      { prompt: "x", choices: ["a", "b".repeat(500)], answer: 0 },
      "choices[1]: has 517 tokens with its prompt, expected at most 128 (max_position_embeddings of the model is 128)",
    ],
  ])("%s is refused", async (_, row, message) => {
    const { data } = rowsFile([{ prompt: "x", choices: ["a", "b"], answer: 0 }, row]);
    await expect(run({ ...options, data }, taskContext())).rejects.toThrow(
      expect.objectContaining({ name: "DataError", message: `${data}:2: ${message}` }),
    );
  });
});

describe("the command", () => {
  test("--out holds each row and how it was answered; the result is no row of it", async () => {
    const { dir, out } = rowsFile([
      { prompt: "1+1=", answer: "2" },
      { prompt: "7*8=", answer: "1" },
    ]);
    const args = ["eval", "--model", model, "--data", "rows.jsonl"];
    const { code, stdout } = await heddle(dir, ...args, "--out", "out.jsonl");
    expect([code, JSON.parse(stdout)]).toEqual([0, { accuracy: 0.5, count: 2, standard_error: 0.5 }]);
    expect(readJsonl(out)).toEqual([
      { prompt: "1+1=", answer: "2", completion: "2", correct: true },
      { prompt: "7*8=", answer: "1", completion: "56", correct: false },
    ]);
    expect(await heddle(dir, ...args, "--out", "-")).toEqual({
      code: 2,
      stdout: "",
      stderr: "error: --out: expected a file, since the result goes to stdout, got -\n",
    });
  });

  test("prints one line of JSON: the fixture's teacher is right on 54.5 % of the test rows", async () => {
    vi.unstubAllEnvs();
    const data = fixture("arithmetic/test.jsonl");
    const flags = ["--max-new-tokens", "16", "--batch-size", "64"];
    const { code, stdout, stderr } = await heddle(".", "eval", "--model", model, "--data", data, ...flags);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^\{"accuracy":.*\}\n$/);
    const result = JSON.parse(stdout);
    expect(Object.keys(result)).toEqual(["accuracy", "count", "standard_error"]);
    expect(Math.abs(result.accuracy - 0.545)).toBeLessThan(0.004);
    expect(result.count).toBe(1329);
    expect(stderr).toMatch(
      /^eval: 21 steps\n(compiled sample in .*\n|eval: step .*\n)*eval: 21 steps done in .* tokens\/s\n$/,
    );
  });
});
