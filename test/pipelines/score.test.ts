/** `heddle score`: its task in this process, and the command as a user runs it. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { tf } from "tfjs-jit";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { openModel } from "../../model/load.js";
import { run } from "../../pipelines/tasks/score.js";
import { changedCheckpoint, copyOf } from "../model/folder.js";
import { fixture, readGolden } from "../model/golden.js";
import { heddle, heddleReading, readJsonl, rowsFile, taskContext } from "./command.js";

type Scored = { ids: number[]; logprobs: (number | null)[] };
const teacher = fixture("arithmetic/teacher");
const tiny = fixture("models/gemma2-tiny");
const user = (content: string) => ({ role: "user", content });
const assistant = (content: string) => ({ role: "assistant", content });

async function score(rows: object[], { model = teacher, batchSize = 2, system = "error" as const } = {}) {
  const { data, out } = rowsFile(rows);
  const context = taskContext();
  await run({ model, data, out, batchSize, system }, context);
  return { scored: readJsonl<Scored & Record<string, unknown>>(out), events: context.events };
}

/** The message of the error that rows lead to; FILE stands for the path of the data. */
async function complaint(rows: object[], model = teacher): Promise<string> {
  const { dir, data, out } = rowsFile(rows);
  const error = await run({ model, data, out, batchSize: 2, system: "error" }, taskContext()).catch((e: unknown) => e);
  expect(error).toMatchObject({ name: "DataError" });
  expect(readdirSync(dir)).toEqual(["rows.jsonl"]);
  return (error as Error).message.replaceAll(data, "FILE");
}

// Op by op, which needs no compiling: that jit gives the same is a test of its own.
beforeAll(() => void vi.stubEnv("HEDDLE_JIT", "0"));

describe("rows of ids", () => {
  let rows: { ids: number[]; name: string }[];
  let expected: number[][];
  /** The sequences of the golden file without their padding, and ln p of their tokens by the logits of transformers. */
  beforeAll(async () => {
    const golden = await readGolden(tiny);
    const logprobs = tf.logSoftmax(golden.logits!).arraySync() as number[][][];
    const attention = golden.attention_mask!.arraySync() as number[][];
    const ids = golden.ids!.arraySync() as number[][];
    const begins = attention.map((row) => row.indexOf(1));
    rows = ids.map((row, b) => ({ ids: row.slice(begins[b]), name: `row ${b}` }));
    expected = rows.map((row, b) => row.ids.slice(1).map((id, i) => logprobs[b]![begins[b]! + i]![id]!));
  });

  test.each([1, 2, 8])("in batches of %i: each row, in its order, plus its log-probabilities", async (batchSize) => {
    const { scored } = await score(rows, { model: tiny, batchSize });
    expect(scored.map(({ ids, name }) => ({ ids, name }))).toEqual(rows);
    scored.forEach(({ logprobs }, b) => {
      expect(logprobs[0]).toBeNull();
      expect(logprobs.length).toBe(rows[b]!.ids.length);
      logprobs.slice(1).forEach((logprob, i) => {
        expect(Math.abs(logprob! - expected[b]![i]!)).toBeLessThan(4e-4);
      });
    });
  });

  test("one token has no log-probability", async () => {
    expect((await score([{ ids: [7] }])).scored).toEqual([{ ids: [7], logprobs: [null] }]);
  });

  test("what was scored is scored again as it was", async () => {
    const { scored } = await score([{ prompt: "1+1=" }]);
    expect((await score(scored)).scored).toEqual(scored);
  });
});

describe("rows of text", () => {
  test("are prompts as the model sees them in training, completion and stop token included", async () => {
    const { chat, tokenizer } = await openModel(teacher);
    const prompt = await chat.promptIds([user("1+1=")]);
    const completion = [...(await tokenizer!.encode("2")), 6];
    const conversation = [user("1+1="), assistant("2"), user("+3=")];
    const { scored } = await score([
      { prompt: "1+1=", answer: "2" },
      { messages: [user("1+1=")] },
      { messages: conversation },
      { messages: [user("1+1="), assistant("2")] },
      { prompt: "1+1=", completion: "2" },
    ]);
    expect(scored.map(({ ids }) => ids)).toEqual([
      prompt,
      prompt,
      await chat.promptIds(conversation),
      [...prompt, ...completion],
      [...prompt, ...completion],
    ]);
    expect(scored[0]).toMatchObject({ prompt: "1+1=", answer: "2" });
    expect(scored[3]!.logprobs.at(-2)).toBeGreaterThan(-1); // The teacher knows that 1+1=2.
  });

  test("are plain texts with one <bos> where the folder has no chat template", async () => {
    const model = await copyOf("arithmetic/teacher");
    await rm(join(model, "chat_template.jinja"));
    const rows = [{ prompt: "1+1=" }, { prompt: "<bos>1+1=" }, { prompt: "1+1=", completion: "2" }];
    const { scored } = await score(rows, { model });
    const { tokenizer } = await openModel(model);
    const prompt = [2, ...(await tokenizer!.encode("1+1="))];
    // <eos> ends a plain text.
    const whole = [...prompt, ...(await tokenizer!.encode("2")), 1];
    expect(scored.map(({ ids }) => ids)).toEqual([prompt, prompt, whole]);
  });
});

test("tells its batches as steps, with the tokens of all rows a second, and leaves no tensor behind", async () => {
  const before = tf.memory().numTensors;
  const { events } = await score(Array.from({ length: 5 }, () => ({ ids: [2, 3, 4] })));
  const metrics = { tokens_per_second: expect.any(Number) };
  expect(events).toEqual([
    { type: "stage", stage: "score", steps: 3, done: 0 },
    ...[1, 2, 3].map((step) => ({ type: "step", stage: "score", step, metrics })),
    { type: "stage", stage: "score", steps: 3, done: 3 },
  ]);
  expect(tf.memory().numTensors).toBe(before);
});

test("stops between two batches: the file that was there stays, and what is done beside it", async () => {
  const { dir, data, out } = rowsFile(Array.from({ length: 6 }, () => ({ ids: [2, 3, 4] })));
  writeFileSync(out, "old\n");
  const context = taskContext();
  const emit: typeof context.emit = (event) => {
    context.emit(event);
    if (event.type === "step") context.stop.abort(new Error("asked to stop"));
  };
  const params = { model: teacher, data, out, batchSize: 2, system: "error" as const };
  await expect(run(params, { ...context, emit })).rejects.toThrow("asked to stop");
  expect(context.events.filter(({ type }) => type === "step").length).toBe(1);
  expect(readFileSync(out, "utf8")).toBe("old\n");
  expect(readdirSync(dir).sort()).toEqual(["out.jsonl", "out.jsonl.partial", "out.jsonl.partial.json", "rows.jsonl"]);
  expect(readJsonl(`${out}.partial`).length).toBe(2);
  await run(params, taskContext());
  expect(readJsonl(out).length).toBe(6);
  expect(readdirSync(dir).sort()).toEqual(["out.jsonl", "rows.jsonl"]);
});

describe("a bad row is one error, before anything is written", () => {
  const good = { ids: [2] };
  test.each<[string, object[], string]>([
    ["no prompt", [good, {}], 'FILE:2: expected "ids", "prompt" or "messages", got no keys'],
    [
      "an id that the model does not have",
      [good, { ids: [2, 384] }],
      "FILE:2: ids[1]: expected a token id from 0 to 383 (vocab_size of the model), got 384",
    ],
    [
      "too many tokens",
      [{ ids: Array(129).fill(2) }],
      "FILE:1: has 129 tokens, expected at most 128 (max_position_embeddings of the model is 128; --stride scores longer ones)",
    ],
    [
      "a conversation that the template refuses",
      [good, { messages: [user("1+1="), user("2+2=")] }],
      `FILE:2: ${join(teacher, "chat_template.jinja")}: the chat template refuses these messages: ` +
        "Conversation roles must alternate user/assistant/user/assistant/...",
    ],
    [
      "a system message",
      [{ messages: [{ role: "system", content: "Be brief." }, user("1+1=")] }],
      "FILE:1: messages[0]: expected no system message, since the model's chat template knows no such role; " +
        "set `system: fold` to put its text before the user's, or `system: drop` to leave it out",
    ],
  ])("%s", async (_, rows, message) => {
    expect(await complaint(rows)).toBe(message);
  });

  test("text for a model without a tokenizer", async () => {
    expect(await complaint([{ ids: [2] }, { prompt: "1+1=" }], tiny)).toBe(
      `FILE:2: ${join(tiny, "tokenizer.json")}: no such file, needed to turn text into token ids`,
    );
  });
});

test("a log-probability that is no number ends it, and names the row", async () => {
  const model = await changedCheckpoint("arithmetic/teacher", (tensors) =>
    tensors.map(({ name, shape, data, ...tensor }) =>
      name === "model.norm.weight"
        ? {
            name,
            shape,
            dtype: "F32",
            data: new Uint8Array(Float32Array.from({ length: shape[0]! }, () => 3e38).buffer),
          }
        : { name, shape, data, ...tensor },
    ),
  );
  const { data, out } = rowsFile([{ ids: [2] }, { ids: [2, 5, 9] }]);
  await expect(run({ model, data, out, batchSize: 2, system: "error" }, taskContext())).rejects.toMatchObject({
    name: "ModelError",
    message:
      `${model}: a log-probability of ${data}:2 is NaN, expected a finite number: the model's activations overflow; ` +
      "set dtype float32, or take another model",
  });
});

describe("a summary", () => {
  test("sums up all rows: nats a token, exp of them, and bits over the bytes of the text", async () => {
    const { data, out } = rowsFile([{ prompt: "1+1=" }, { prompt: "é", completion: "2" }]);
    const model = await copyOf("arithmetic/teacher");
    await rm(join(model, "chat_template.jinja"));
    const params = { model, data, out, batchSize: 2, system: "error" as const };
    const summary = await run(params, taskContext());
    const logprobs = readJsonl<Scored>(out).flatMap((row) => row.logprobs.slice(1) as number[]);
    const nats = -logprobs.reduce((sum, one) => sum + one, 0);
    expect(summary).toEqual({
      rows: 2,
      tokens: logprobs.length,
      mean_logprob: expect.closeTo(-nats / logprobs.length, 12),
      perplexity: expect.closeTo(Math.exp(nats / logprobs.length), 9),
      // 1+1= is four bytes, é two, 2 one; <bos> and <eos> are no text.
      bits_per_byte: expect.closeTo(nats / Math.log(2) / 7, 12),
    });
  });

  test("has no bytes where a row is ids", async () => {
    const { data, out } = rowsFile([{ prompt: "1+1=" }, { ids: [2, 5] }]);
    const params = { model: teacher, data, out, batchSize: 2, system: "error" as const };
    expect(await run(params, taskContext())).toMatchObject({ rows: 2, bits_per_byte: null });
  });
});

describe("windows", () => {
  const ids = (length: number) => Array.from({ length }, (_, i) => 2 + ((i * 37) % 100));
  const scoreIds = async (rows: number[][], flags: { window?: number; stride?: number; batchSize?: number }) => {
    const { data, out } = rowsFile(rows.map((ids) => ({ ids })));
    await run({ model: tiny, data, out, batchSize: 2, system: "error", ...flags }, taskContext());
    return readJsonl<Scored>(out).map(({ logprobs }) => logprobs);
  };
  const close = (a: (number | null)[], b: (number | null)[]) => {
    expect(a.length).toBe(b.length);
    a.forEach((value, i) => {
      expect(Math.abs((value ?? 0) - (b[i] ?? 0)), `token ${i}`).toBeLessThan(1e-4);
    });
  };

  test("that hold the row change nothing", async () => {
    const rows = [ids(40), ids(7)];
    const whole = await scoreIds(rows, {});
    expect(await scoreIds(rows, { stride: 1 })).toEqual(whole);
    (await scoreIds(rows, { window: 40, stride: 3 })).forEach((logprobs, i) => {
      close(logprobs, whole[i]!);
    });
  });

  test("of 8 tokens, 3 apart: each token as the end of the 8 tokens, or fewer, that its window begins with", async () => {
    const row = ids(20);
    const [logprobs] = await scoreIds([row], { window: 8, stride: 3 });
    // Windows begin at 0, 3, 6, 9 and 12 and end at 8, 11, 14, 17 and 20.
    const beginOf = (token: number) => (token < 8 ? 0 : 3 * Math.ceil((token - 7) / 3));
    const alone = await scoreIds(
      row.slice(1).map((_, i) => row.slice(beginOf(i + 1), i + 2)),
      { batchSize: 19 },
    );
    close(logprobs!, [null, ...alone.map((part) => part.at(-1)!)]);
  });

  test("score rows that are longer than the context, beside short ones", async () => {
    const [long, short] = await scoreIds([ids(500), ids(30)], { stride: 64, batchSize: 4 });
    expect([long!.length, short!.length]).toEqual([500, 30]);
    const [head, alone] = await scoreIds([ids(128), ids(30)], {});
    close(long!.slice(0, 128), head!);
    close(short!, alone!);
  });

  test.each([
    [{ window: 129 }, "--window: expected at most 128, max_position_embeddings of the model, got 129"],
    [
      { window: 16, stride: 16 },
      "--stride: expected less than the window of 16 tokens, so that each token follows another, got 16",
    ],
    [
      { stride: 500 },
      "--stride: expected less than the window of 128 tokens, so that each token follows another, got 500",
    ],
  ])("%j is refused", async (flags, message) => {
    await expect(scoreIds([ids(5)], flags)).rejects.toThrow(expect.objectContaining({ name: "UserError", message }));
  });
});

describe("the command", () => {
  test("--summary prints one line; rows come from stdin and go to stdout where told so", async () => {
    const { dir } = rowsFile([{ prompt: "1+1=" }]);
    const model = ["score", "--model", teacher];
    const scored = await heddle(dir, ...model, "--data", "rows.jsonl", "--out", "out.jsonl", "--summary");
    expect(scored.stdout).toMatch(
      /^\{"rows":1,"tokens":\d+,"mean_logprob":-.*,"perplexity":.*,"bits_per_byte":.*\}\n$/,
    );
    const piped = await heddleReading('{"prompt": "1+1="}\n', dir, ...model, "--data", "-", "--out", "-");
    expect(piped.code).toBe(0);
    expect(piped.stdout).toBe(readFileSync(join(dir, "out.jsonl"), "utf8"));
  });

  test.each([
    ["", [], "stdin: expected at least one row, got an empty file"],
    ["{}\n", [], 'stdin:1: expected "ids", "prompt" or "messages", got no keys'],
    ["", ["--summary"], "--out: expected a file, since --summary goes to stdout, got -"],
    [
      '{"messages": [{"role": "user", "content": "1+1="}]}\n',
      ["--ignore-chat-template"],
      "stdin:1: messages: expected a prompt, since --ignore-chat-template leaves nothing to render a conversation with",
    ],
  ])("of stdin %j with %j is refused", async (stdin, flags, message) => {
    const args = ["score", "--model", teacher, "--data", "-", "--out", "-", ...flags];
    expect(await heddleReading(stdin, ".", ...args)).toEqual({ code: 2, stdout: "", stderr: `error: ${message}\n` });
  });

  test("writes the file, shows progress on stderr and nothing on stdout", async () => {
    vi.stubEnv("HEDDLE_JIT", "1");
    const { dir, out } = rowsFile([{ prompt: "1+1=" }, { prompt: "(3+4)*2=" }, { ids: [2, 5] }]);
    const args = ["score", "--model", teacher, "--data", "rows.jsonl", "--out", "out.jsonl", "--batch-size", "2"];
    const { code, stdout, stderr } = await heddle(dir, ...args);
    vi.stubEnv("HEDDLE_JIT", "0");
    expect([code, stdout]).toEqual([0, ""]);
    expect(stderr).toMatch(
      /^score: 2 steps\n(compiled .* in .*\n|score: step .*\n)*score: 2 steps done in .*, [\d,]+ tokens\/s\n$/,
    );
    const [first] = readJsonl<Scored>(out);
    const [same] = (await score([{ prompt: "1+1=" }])).scored;
    expect(first!.ids).toEqual(same!.ids);
    first!.logprobs.forEach((logprob, i) => {
      expect(Math.abs((logprob ?? 0) - (same!.logprobs[i] ?? 0))).toBeLessThan(1e-5);
    });
  });

  test("--system drop leaves a system message out; a bad row is code 2", async () => {
    const { dir, out } = rowsFile([{ messages: [{ role: "system", content: "Be brief." }, user("1+1=")] }]);
    const args = ["score", "--model", teacher, "--data", "rows.jsonl", "--out", "out.jsonl"];
    expect(await heddle(dir, ...args)).toEqual({
      code: 2,
      stdout: "",
      stderr: expect.stringMatching(/^error: rows\.jsonl:1: messages\[0\]: .*\n$/),
    });
    expect(existsSync(out)).toBe(false);
    expect(await heddle(dir, ...args, "--system", "drop")).toMatchObject({ code: 0 });
    expect(readJsonl<Scored>(out)[0]!.ids).toEqual(await (await openModel(teacher)).chat.promptIds([user("1+1=")]));
  });

  test("--allow-control-tokens: what a message spells like the end of a turn ends it", async () => {
    const { dir, out } = rowsFile([{ prompt: "1+1=<end_of_turn>" }]);
    const args = ["score", "--model", teacher, "--data", "rows.jsonl", "--out", "out.jsonl"];
    const ends = async (...flags: string[]) => {
      expect(await heddle(dir, ...args, ...flags)).toMatchObject({ code: 0 });
      return readJsonl<Scored>(out)[0]!.ids.filter((id) => id === 6).length;
    };
    expect([await ends(), await ends("--allow-control-tokens")]).toEqual([1, 2]);
  });
});
