/** `heddle eval`: its task in this process, and the command as a user runs it. */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { run } from "../../pipelines/tasks/eval.js";
import { run as runGenerate } from "../../pipelines/tasks/generate.js";
import { fixture } from "../model/golden.js";
import { heddle, readJsonl, rowsFile, taskContext } from "./command.js";

const model = fixture("arithmetic/teacher");
const options = { model, system: "error", maxNewTokens: 8, temperature: 0, batchSize: 4 } as const;

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
      await runGenerate({ ...options, temperature, data, out, topK: 0, topP: 1, seed: 0 }, taskContext());
      const right = readJsonl<{ completion: string; answer: string }>(out).filter(
        (row) => row.completion === row.answer,
      );
      expect(await run({ ...options, temperature, data }, taskContext())).toMatchObject({
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

describe("the command", () => {
  test("prints one line of JSON: the fixture's teacher is right on 54.5 % of the test rows", async () => {
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
