/** --load-in-4bit and --load-in-8bit: what commands say is what they say of the folder that holds the values of the codes. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import type { Quantisation } from "../../model/compute.js";
import { openModel } from "../../model/load.js";
import { loadParameters } from "../../model/loaded.js";
import { disposeParameters } from "../../model/parameters.js";
import { saveModel } from "../../model/save.js";
import { open as openChat } from "../../pipelines/tasks/chat.js";
import { type EvalResult, run as runEval } from "../../pipelines/tasks/eval.js";
import { run as runGenerate } from "../../pipelines/tasks/generate.js";
import { run as runScore } from "../../pipelines/tasks/score.js";
import { open as openServe } from "../../pipelines/tasks/serve.js";
import { mergedTensors } from "../../student/lora.js";
import { fixture } from "../model/golden.js";
import { heddle, newFolder, readJsonl, rowsFile, taskContext } from "./command.js";

const model = fixture("arithmetic/teacher");

/** A folder of float32 weights, which are the values of the codes. */
async function valuesOf(quantised: Quantisation): Promise<string> {
  const folder = await openModel(model, { quantised });
  const { config, parameters } = await loadParameters(folder);
  const dir = join(newFolder(), "model");
  await saveModel(dir, mergedTensors(config, parameters), { from: model, dtype: "float32" });
  disposeParameters(parameters);
  return dir;
}

type Loaded = { readonly model: string; readonly loadIn4bit?: boolean; readonly loadIn8bit?: boolean };

test.each([
  { flags: { loadIn4bit: true }, quantised: "nf4" },
  { flags: { loadIn8bit: true }, quantised: "int8" },
] as const)(
  "score gives the log-probabilities of the values in $quantised, others than the model's own",
  async (kind) => {
    const score = async (how: Loaded) => {
      const { data, out } = rowsFile([{ prompt: "12+34=", completion: "46" }, { ids: [2, 10, 11, 12, 13] }]);
      await runScore({ ...how, data, out, batchSize: 2, system: "error" }, taskContext());
      return readJsonl<{ logprobs: (number | null)[] }>(out).flatMap(({ logprobs }) => logprobs.slice(1) as number[]);
    };
    const got = await score({ model, ...kind.flags });
    const apart = (other: number[]) => Math.max(...got.map((x, i) => Math.abs(x - other[i]!)));
    expect(apart(await score({ model: await valuesOf(kind.quantised) }))).toBeLessThan(1e-4);
    expect(apart(await score({ model }))).toBeGreaterThan(1e-3);
  },
);

describe("in 4 bits", () => {
  let values: string;
  beforeAll(async () => {
    values = await valuesOf("nf4");
  });

  const both = async <R>(use: (how: Loaded) => Promise<R>): Promise<[R, R]> => [
    await use({ model, loadIn4bit: true }),
    await use({ model: values }),
  ];

  test("generate, eval and chat complete as the values do", async () => {
    const rows = ["1+1=", "20+3=", "7*8=", "9-4="].map((prompt) => ({ prompt, answer: "2" }));
    const greedy = { maxNewTokens: 8, temperature: 0, topK: 0, topP: 1, seed: 0, batchSize: 4 };
    const [got, expected] = await both(async (how) => {
      const { data, out } = rowsFile(rows);
      await runGenerate({ ...how, ...greedy, data, out, system: "error" }, taskContext());
      return readJsonl<{ completion_ids: number[] }>(out).map(({ completion_ids }) => completion_ids);
    });
    expect(got).toEqual(expected);
    const [judged, right] = await both<EvalResult>((how) =>
      runEval({ ...how, ...greedy, data: rowsFile(rows).data, system: "error" }, taskContext()),
    );
    expect(judged).toEqual(right);
    const [said, meant] = await both(async (how) => {
      const context = taskContext();
      const answer = await openChat({ ...how, ...greedy, system: null }, context);
      await answer({ type: "say", text: "20+3=" });
      return context.events.flatMap((event) => (event.type === "text" ? [event.text] : [])).join("");
    });
    expect(said).toBe(meant);
  });

  test("serve scores as the values do", async () => {
    const requests = [{ ids: [2, 10, 11, 12, 13], from: 1 }];
    const [got, expected] = await both(async (how) => {
      const score = await openServe(how);
      const [scores] = await score({ requests, k: 3, rows: 1, length: 16 });
      return [...scores!.actual];
    });
    got.forEach((x, i) => {
      expect(Math.abs(x - expected[i]!)).toBeLessThan(1e-4);
    });
  });
});

describe("the flags", () => {
  const { dir, data, out } = rowsFile([{ ids: [2, 10, 11] }]);

  test.each(["score", "generate", "eval", "chat", "serve"])("%s takes one of the two", async (command) => {
    const rows = ["score", "generate", "eval"].includes(command) ? ["--data", data, "--out", out] : [];
    const ended = await heddle(dir, command, "--model", model, ...rows, "--load-in-4bit", "--load-in-8bit");
    expect(ended).toEqual({
      code: 2,
      stdout: "",
      stderr: "error: option '--load-in-4bit' cannot be used with option '--load-in-8bit'\n",
    });
    expect(existsSync(out)).toBe(false);
  });

  test("a checkpoint that is in 4 bits is not loaded in 8", async () => {
    const packed = fixture("models/gemma3-tiny-nf4");
    const ended = await heddle(dir, "score", "--model", packed, "--data", data, "--out", out, "--load-in-8bit");
    expect(ended).toMatchObject({
      code: 2,
      stderr:
        `error: ${packed}: tensor "model.layers.0.mlp.down_proj.weight" is in 4 bits (bitsandbytes): ` +
        "expected load_in_4bit or neither, got load_in_8bit\n",
    });
  });
});
