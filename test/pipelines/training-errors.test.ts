/** What stops a training command before or within its steps: the message, code 2, and nothing that looks like a model. */
import { once } from "node:events";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { createAdaptorServer } from "@hono/node-server";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { saveModel } from "../../model/save.js";
import { readLog } from "../../pipelines/run-folder.js";
import { teacherApp } from "../../teacher/server.js";
import { tokenizerSha256 } from "../../teacher/tokenizer-hash.js";
import { setKeys } from "../model/folder.js";
import {
  completeRun,
  filesIn,
  killPrograms,
  newWorkplace,
  readModel,
  teacher,
  writeConfig,
  writeRows,
} from "./training-run.js";

let cwd: string;
beforeAll(async () => {
  cwd = await newWorkplace();
});
afterEach(killPrograms);

const distill = { steps: 2, batch_size: 2 };
const rl = { steps: 2, prompts: 2 };

/** Runs a command to its end in a new run; `stderr` is without the line that a stage begins with. */
async function failing(
  command: string,
  config: object,
): Promise<{ code: number | null; stderr: string; files: string[] }> {
  const name = `run-${runs++}`;
  const dir = writeConfig(cwd, name, config);
  const { code, stdout, stderr } = await completeRun(cwd, command, name);
  expect(stdout).toBe("");
  return { code, stderr: stderr.replace(/^\w+: \d steps\n/, ""), files: filesIn(dir) };
}
let runs = 0;

const refused = (message: string) => ({ code: 2, stderr: `error: ${message}\n`, files: ["config.yaml"] });

describe("data", () => {
  const row = { prompt: "5+6=", answer: "11", completion: "11" };

  test("sft: a row without a completion", async () => {
    writeRows(join(cwd, "no-completion.jsonl"), [row, { prompt: "5+6=" }]);
    expect(await failing("sft", { train_data: "no-completion.jsonl", sft: { steps: 2 } })).toEqual(
      refused("no-completion.jsonl:2: completion: expected the text to learn, got none"),
    );
  });

  test("rl: a row without an answer; warp says it before it distils, of held-out rows too", async () => {
    writeRows(join(cwd, "no-answer.jsonl"), [row, { prompt: "5+6=" }]);
    const error = refused("no-answer.jsonl:2: answer: expected the text to match, got none");
    const warp = { teacher, distill, rl, warp: {} };
    expect(await failing("rl", { train_data: "no-answer.jsonl", rl })).toEqual(error);
    expect(await failing("warp", { ...warp, train_data: "no-answer.jsonl" })).toEqual(error);
    expect(await failing("warp", { ...warp, eval_data: "no-answer.jsonl" })).toEqual(error);
  });

  test("a prompt that leaves no room for a completion", async () => {
    // The template adds 16 tokens; what fits is a prompt of 126 tokens and a completion of 2.
    writeRows(join(cwd, "long.jsonl"), [{ prompt: "1".repeat(110) }, { prompt: "1".repeat(111) }]);
    expect(await failing("distill", { train_data: "long.jsonl", teacher, distill })).toEqual(
      refused(
        "long.jsonl:2: the prompt has 127 tokens; with max_new_tokens 2 expected at most 128, the model's max_position_embeddings",
      ),
    );
  });
});

describe("a teacher whose ids mean something else", () => {
  test("by the size of its vocabulary", async () => {
    const [from, smaller] = [join(cwd, "model"), join(cwd, "smaller")];
    cpSync(from, smaller, { recursive: true });
    await setKeys(join(smaller, "config.json"), { vocab_size: 380 });
    const { weights } = await readModel(from);
    const { shape, values } = weights["model.embed_tokens.weight"]!;
    const embedding = { shape: [380, shape[1]!], values: values.subarray(0, 380 * shape[1]!) };
    await saveModel(
      smaller,
      { ...weights, "model.embed_tokens.weight": embedding },
      { from: smaller, dtype: "bfloat16" },
    );
    expect(await failing("distill", { teacher: "smaller", distill })).toEqual(
      refused(
        "smaller: the teacher's vocabulary has 380 entries, the student's (model) 384; " +
          "expected models of one family, whose token ids mean the same",
      ),
    );
  });

  test("by its tokenizer", async () => {
    cpSync(join(cwd, "model"), join(cwd, "swapped"), { recursive: true });
    const path = join(cwd, "swapped", "tokenizer.json");
    const text = readFileSync(path, "utf8");
    const { vocab } = (JSON.parse(text) as { model: { vocab: Record<string, number> } }).model;
    const swapped = { ...vocab, "1": vocab["2"]!, "2": vocab["1"]! };
    writeFileSync(path, JSON.stringify({ ...JSON.parse(text), model: { ...JSON.parse(text).model, vocab: swapped } }));
    const [theirs, ours] = [await tokenizerSha256(join(cwd, "swapped")), await tokenizerSha256(join(cwd, "model"))];
    expect(await failing("distill", { teacher: "swapped", distill })).toEqual(
      refused(
        `swapped: the teacher's tokenizer (sha256 ${theirs!.slice(0, 12)}...) gives other ids to tokens than the student's ` +
          `(model, ${ours!.slice(0, 12)}...); expected models of one family, whose token ids mean the same`,
      ),
    );
  });
});

describe("a teacher behind an address", () => {
  const servers: Server[] = [];
  afterAll(() => {
    for (const server of servers) server.close();
  });

  /** The address of a server that says who it is, and is asked nothing else. */
  async function serving(vocabSize: number, tokenizer: string | null): Promise<string> {
    const score = () => Promise.reject(new Error("asked to score"));
    const identity = { modelName: "other", vocabSize, tokenizerSha256: tokenizer };
    const app = teacherApp({ ...identity, maxModelLen: 128, maxLogprobs: vocabSize, encode: null, score });
    const server = createAdaptorServer({ fetch: app.fetch }) as Server;
    servers.push(server.listen(0, "127.0.0.1"));
    await once(server, "listening");
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  test("with another vocabulary", async () => {
    const url = await serving(256, null);
    expect(await failing("distill", { teacher: url, distill })).toEqual(
      refused(
        `${url}: other has a vocabulary of 256, the student one of 384. ` +
          "Student and teacher must share token ids: use a teacher of the student's family",
      ),
    );
  });

  test("with another tokenizer", async () => {
    const url = await serving(384, "ab".repeat(32));
    const ours = await tokenizerSha256(join(cwd, "model"));
    expect(await failing("distill", { teacher: url, distill })).toEqual(
      refused(
        `${url}: other has another tokenizer (sha256 abababababab...) than the student (${ours!.slice(0, 12)}...). ` +
          "Student and teacher must share token ids: use a teacher of the student's family",
      ),
    );
  });

  test("that would have to tell more than it can", async () => {
    const url = await serving(384, await tokenizerSha256(join(cwd, "model")));
    const loss = { loss_top_k: 8, loss_temperature: 2 };
    expect(await failing("distill", { teacher: url, distill: { ...distill, ...loss } })).toEqual(
      refused(
        "loss_temperature 2 with loss_add_tail: true needs the teacher's whole distribution, but a teacher over HTTP tells " +
          "log-probabilities of its top 8 tokens at temperature 1: set loss_temperature: 1, or loss_add_tail: false, or " +
          "loss_top_k: 384 (the whole vocabulary)",
      ),
    );
  });
});

test("more of the likeliest tokens than there are", async () => {
  expect(await failing("distill", { teacher, distill: { ...distill, loss_top_k: 385 } })).toEqual(
    refused("loss_top_k: expected an integer from 1 to 384 (the vocabulary), got 385"),
  );
});

describe("numbers that are none", () => {
  test.each([
    ["loss", 1e38],
    ["norm of the gradient", 1e30],
  ])("the %s, after a step of %d", async (what, learningRate) => {
    const sft = { steps: 2, batch_size: 2, learning_rate: learningRate };
    expect(await failing("sft", { sft })).toEqual({
      code: 2,
      stderr: `error: sft: the ${what} is NaN at step 2; lower learning_rate or max_grad_norm, and start the run again\n`,
      files: ["config.yaml", "log.jsonl"],
    });
    expect(readLog(join(cwd, "runs", `run-${runs - 1}`)).map(({ step }) => step)).toEqual([1]);
  });
});
