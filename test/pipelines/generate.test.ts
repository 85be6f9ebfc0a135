/** `heddle generate`: its task in this process, and the command as a user runs it. */
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { tf } from "tfjs-jit";
import { afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { type GenerateParams, run } from "../../pipelines/tasks/generate.js";
import { run as runScore } from "../../pipelines/tasks/score.js";
import { copyOf, setKeys } from "../model/folder.js";
import { fixture } from "../model/golden.js";
import { heddle, heddleReading, readJsonl, rowsFile, startHeddle, taskContext } from "./command.js";

type Generated = { completion?: string; completion_ids: number[]; logprobs: number[] };
const teacher = fixture("arithmetic/teacher");
const tiny = fixture("models/gemma2-tiny");
const stops = [1, 6];

const defaults = { model: teacher, system: "error", batchSize: 2, maxNewTokens: 8, topK: 0, topP: 1, seed: 0 } as const;
const greedy = { ...defaults, temperature: 0 };
const sampling = { ...defaults, temperature: 1 };

async function generate(rows: object[], params: Omit<GenerateParams, "data" | "out">) {
  const { data, out } = rowsFile(rows);
  const context = taskContext();
  await run({ ...params, data, out }, context);
  return {
    generated: readJsonl<Generated & Record<string, unknown>>(out),
    text: readFileSync(out, "utf8"),
    ...context,
  };
}

const sums = ["1+1=", "20+3=", "(3+4)*2=", "100/4=", "7*8="].map((prompt) => ({ prompt }));

// In this process op by op, which needs no compiling: that jit gives the same is a test of its own.
beforeAll(() => void vi.stubEnv("HEDDLE_JIT", "0"));

describe("greedy", () => {
  let generated: (Generated & Record<string, unknown>)[];
  beforeAll(async () => {
    ({ generated } = await generate([{ prompt: "1+1=", answer: "2" }, ...sums.slice(1)], greedy));
  });

  test("adds completion, ids with their stop token, and log-probabilities to each row, in its order", async () => {
    expect(generated.map(({ prompt }) => prompt)).toEqual(sums.map(({ prompt }) => prompt));
    expect(generated[0]).toEqual({
      prompt: "1+1=",
      answer: "2",
      completion: "2",
      completion_ids: [282, 6],
      logprobs: [expect.any(Number), expect.any(Number)],
    });
    for (const { completion_ids, logprobs } of generated) {
      expect(logprobs.length).toBe(completion_ids.length);
      const stop = completion_ids.findIndex((id) => stops.includes(id));
      expect(stop).toBe(completion_ids.length - 1);
    }
  });

  test("a prompt, a conversation and ids that mean the same give the same, whatever else is in the batch", async () => {
    const { data, out } = rowsFile(sums.slice(0, 1));
    await runScore({ model: teacher, data, out, batchSize: 1, system: "error" }, taskContext());
    const { ids } = readJsonl<{ ids: number[] }>(out)[0]!;
    const messages = [{ role: "user", content: "1+1=" }];
    const same = await generate(
      [{ ids }, { messages }, { messages: [...messages, { role: "assistant", content: "no prompt" }] }],
      greedy,
    );
    for (const { completion } of same.generated) expect(completion).toBe("2");
  });

  test("the log-probabilities are those that score gives", async () => {
    const { data, out } = rowsFile(sums);
    await runScore({ model: teacher, data, out, batchSize: 5, system: "error" }, taskContext());
    const prompts = readJsonl<{ ids: number[] }>(out).map(({ ids }) => ids);
    const whole = rowsFile(prompts.map((ids, i) => ({ ids: [...ids, ...generated[i]!.completion_ids] })));
    await runScore({ model: teacher, data: whole.data, out, batchSize: 5, system: "error" }, taskContext());
    readJsonl<{ logprobs: number[] }>(out).forEach(({ logprobs }, i) => {
      const scored = logprobs.slice(prompts[i]!.length);
      expect(scored.length).toBe(generated[i]!.logprobs.length);
      scored.forEach((logprob, t) => {
        expect(Math.abs(logprob - generated[i]!.logprobs[t]!)).toBeLessThan(1e-4);
      });
    });
  });
});

describe("sampling", () => {
  test("the same seed writes the same file, another one another", async () => {
    const hot = { ...sampling, temperature: 3 };
    const { text } = await generate(sums, hot);
    expect((await generate(sums, hot)).text).toBe(text);
    expect((await generate(sums, { ...hot, seed: 1 })).text).not.toBe(text);
  });

  test("rows that are alike get completions of their own, in one batch and in different ones", async () => {
    const { generated } = await generate(Array(8).fill({ ids: [2, 3, 4] }), { ...sampling, model: tiny, batchSize: 4 });
    expect(new Set(generated.map(({ completion_ids }) => `${completion_ids}`)).size).toBe(8);
  });

  test("rows of any lengths come out in their order, each with the completion that it gets alone", async () => {
    const rows = [3, 40, 5, 90, 3, 17, 64].map((length, i) => ({ ids: Array.from({ length }, (_, t) => 2 + i + t) }));
    const flags = { ...greedy, model: tiny };
    const { generated } = await generate(rows, { ...flags, batchSize: 3 });
    expect(generated.map(({ ids }) => ids)).toEqual(rows.map(({ ids }) => ids));
    const { generated: alone } = await generate(rows, { ...flags, batchSize: 1 });
    expect(generated.map(({ completion_ids }) => completion_ids)).toEqual(alone.map((row) => row.completion_ids));
  });

  test("--top-k 1 is greedy", async () => {
    const { generated } = await generate(sums, { ...sampling, topK: 1 });
    const { generated: likeliest } = await generate(sums, greedy);
    expect(generated.map(({ completion }) => completion)).toEqual(likeliest.map(({ completion }) => completion));
  });
});

test("a completion ends at max_position_embeddings, prompt included, which is said once", async () => {
  const model = await copyOf("models/gemma2-tiny");
  await setKeys(join(model, "config.json"), { max_position_embeddings: 24 });
  const [short, long] = [{ ids: [2, 3, 4] }, { ids: Array.from({ length: 21 }, (_, i) => (i === 0 ? 2 : 100 + i)) }];
  const { generated, events } = await generate([short, long, short], { ...sampling, model, maxNewTokens: 50 });
  const note = "completions end where a row has 24 tokens, the model's max_position_embeddings";
  expect(events.filter(({ type }) => type === "note")).toEqual([{ type: "note", text: note }]);
  generated.forEach(({ ids, completion_ids, logprobs }, i) => {
    const most = 24 - (ids as number[]).length;
    if (completion_ids.at(-1) !== 1) expect(completion_ids.length, `row ${i}`).toBe(most);
    expect(completion_ids.length).toBeLessThanOrEqual(most);
    expect(logprobs.length).toBe(completion_ids.length);
  });
  expect((await generate([short], { ...sampling, model, maxNewTokens: 21 })).events[0]!.type).toBe("stage");
});

describe("several samples of a row", () => {
  test("are lines of their own, one after the other, numbered from 0", async () => {
    const { generated, text } = await generate(sums.slice(0, 3), { ...sampling, temperature: 3, samples: 3 });
    expect(generated.map(({ prompt, sample }) => [prompt, sample])).toEqual(
      sums.slice(0, 3).flatMap(({ prompt }) => [0, 1, 2].map((sample) => [prompt, sample])),
    );
    expect(new Set(generated.slice(0, 3).map(({ completion_ids }) => `${completion_ids}`)).size).toBeGreaterThan(1);
    expect((await generate(sums.slice(0, 3), { ...sampling, temperature: 3, samples: 3 })).text).toBe(text);
  });

  test("one sample writes what it always wrote", async () => {
    const { text } = await generate(sums, sampling);
    expect((await generate(sums, { ...sampling, samples: 1 })).text).toBe(text);
    expect(text).not.toContain('"sample"');
  });
});

describe("a stop text", () => {
  test("ends the completion before it, and its ids and log-probabilities with the token that completes it", async () => {
    const { generated: whole } = await generate([{ prompt: "7*8=" }, { prompt: "1+1=" }], greedy);
    const { generated } = await generate([{ prompt: "7*8=" }, { prompt: "1+1=" }], { ...greedy, stop: ["6"] });
    expect(whole[0]!.completion).toBe("56");
    expect(generated[0]!.completion).toBe("5");
    const kept = generated[0]!.completion_ids.length;
    // Without its stop token.
    expect(generated[0]!.completion_ids).toEqual(whole[0]!.completion_ids.slice(0, -1));
    expect(generated[0]!.logprobs).toEqual(whole[0]!.logprobs.slice(0, kept));
    expect(generated[1]).toEqual(whole[1]);
  });

  test("needs a tokenizer", async () => {
    await expect(generate([{ ids: [2] }], { ...greedy, model: tiny, stop: ["6"] })).rejects.toThrow(
      `${tiny}: no tokenizer.json, needed to find --stop in completions`,
    );
  });
});

test("a model without a tokenizer writes no text", async () => {
  const { generated } = await generate([{ ids: [2, 3, 4] }], { ...greedy, model: tiny });
  expect(Object.keys(generated[0]!)).toEqual(["ids", "completion_ids", "logprobs"]);
});

test("a prompt that leaves no room is an error", async () => {
  const { data, out } = rowsFile([{ ids: Array(127).fill(2) }, { ids: Array(128).fill(2) }]);
  await expect(run({ ...greedy, data, out }, taskContext())).rejects.toThrow(
    `${data}:2: has 128 tokens, expected at most 127 (max_position_embeddings of the model is 128)`,
  );
});

test("tells its batches as steps, stops between two of them, and leaves no tensor behind", async () => {
  const before = tf.memory().numTensors;
  const { events } = await generate(sums, greedy);
  expect(events.map(({ type }) => type)).toEqual(["stage", "step", "step", "step", "stage"]);
  expect(events[1]).toEqual({
    type: "step",
    stage: "generate",
    step: 1,
    metrics: { tokens_per_second: expect.any(Number) },
  });

  const { dir, data, out } = rowsFile(sums);
  const context = taskContext();
  context.stop.abort(new Error("asked to stop"));
  await expect(run({ ...greedy, data, out }, context)).rejects.toThrow("asked to stop");
  expect(readdirSync(dir)).toEqual(["rows.jsonl"]);
  expect(tf.memory().numTensors).toBe(before);
});

test("rows may be more than a function takes arguments", async () => {
  const { data, out } = rowsFile(Array.from({ length: 150_000 }, () => ({ ids: [2, 3] })));
  const context = taskContext();
  context.stop.abort(new Error("asked to stop"));
  await expect(run({ ...greedy, data, out }, context)).rejects.toThrow("asked to stop");
});

describe("the command", () => {
  beforeAll(() => void vi.unstubAllEnvs());
  afterEach(() => void vi.unstubAllEnvs());
  const args = ["generate", "--model", teacher, "--data", "rows.jsonl", "--out", "out.jsonl"];

  test("two runs with one seed write the same bytes", async () => {
    const { dir, out } = rowsFile(sums);
    const flags = ["--max-new-tokens", "8", "--seed", "3", "--batch-size", "2"];
    const first = await heddle(dir, ...args, ...flags);
    expect([first.code, first.stdout]).toEqual([0, ""]);
    const progress =
      /^generate: 3 steps\n(compiled sample in .*\n|generate: step .*\n)*generate: 3 steps done in .* tokens\/s\n$/;
    expect(first.stderr).toMatch(progress);
    const bytes = readFileSync(out);
    // The second one finds its programs compiled.
    const second = await heddle(dir, ...args, ...flags);
    expect([second.code, second.stdout]).toEqual([0, ""]);
    expect(second.stderr).toMatch(progress);
    expect(readFileSync(out).equals(bytes)).toBe(true);
  });

  test("Ctrl-C ends it after its batch with 75; the file that was there stays, and the same command goes on", async () => {
    const { dir, out } = rowsFile(Array.from({ length: 80 }, () => sums).flat());
    writeFileSync(out, "old\n");
    const flags = ["--batch-size", "4", "--max-new-tokens", "8"];
    const child = startHeddle(dir, ...args, ...flags);
    let stderr = "";
    child.stderr!.setEncoding("utf8").on("data", (text) => {
      stderr += text;
    });
    const ended = once(child, "close");
    while (!existsSync(`${out}.partial`) || readFileSync(`${out}.partial`).length === 0) await sleep(20);
    child.kill("SIGINT");
    expect((await ended)[0]).toBe(75);
    expect(stderr).toContain(
      "stopping after this step (Ctrl-C again to stop at once)\n" +
        "interrupted by SIGINT; run the same command again to go on\n",
    );
    expect(readFileSync(out, "utf8")).toBe("old\n");
    expect(readdirSync(dir).sort()).toEqual(["out.jsonl", "out.jsonl.partial", "out.jsonl.partial.json", "rows.jsonl"]);
    const again = await heddle(dir, ...args, ...flags);
    expect(again.stderr).toMatch(/^generate: goes on after step \d+ of 100\n/);
    expect(readJsonl(out).length).toBe(400);
    expect(readdirSync(dir).sort()).toEqual(["out.jsonl", "rows.jsonl"]);
  });

  test("--prompt prints its completions; a text ends them", async () => {
    vi.stubEnv("HEDDLE_JIT", "0");
    const flags = ["generate", "--model", teacher, "--prompt", "7*8=", "--temperature", "0"];
    expect(await heddle(".", ...flags)).toMatchObject({ code: 0, stdout: "56\n" });
    expect(await heddle(".", ...flags, "-n", "2", "--stop", "6")).toMatchObject({ code: 0, stdout: "5\n5\n" });
  });

  test("reads rows from stdin and writes to stdout", async () => {
    const flags = ["generate", "--model", teacher, "--data", "-", "--out", "-", "--temperature", "0"];
    const { code, stdout } = await heddleReading('{"prompt": "1+1="}\n{"prompt": "7*8="}\n', ".", ...flags);
    expect(code).toBe(0);
    const lines = stdout.trimEnd().split("\n");
    expect(lines.map((line) => JSON.parse(line).completion)).toEqual(["2", "56"]);
  });

  test.each([
    [[], "expected --data FILE or --prompt TEXT, got neither"],
    [["--data", "-", "--prompt", "x"], "expected --data FILE or --prompt TEXT, got both"],
    [["--data", "-"], "expected --out FILE beside --data, got none"],
    [["--prompt", "x", "--stop", ""], "option '--stop <text>' argument '' is invalid. expected at least one character"],
    [
      ["--prompt", "x", "-n", "0"],
      "option '-n, --samples <n>' argument '0' is invalid. expected an integer, 1 or more",
    ],
    [["--prompt", "x", "--stpo", "y"], "unknown option '--stpo' (Did you mean --stop?)"],
  ])("%j is refused", async (flags, message) => {
    const result = await heddle(".", "generate", "--model", teacher, ...flags);
    expect(result).toEqual({ code: 2, stdout: "", stderr: `error: ${message}\n` });
  });
});
