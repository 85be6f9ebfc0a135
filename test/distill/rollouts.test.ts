/** Prompts and completions as token ids, with the tokenizer, chat template and model of the arithmetic student. */
import { tf } from "tfjs-jit";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { place, type Row } from "../../distill/data.js";
import { type EncodedRow, encodeCompletions, encodePrompts, meanLength } from "../../distill/encode.js";
import { logProbOf } from "../../distill/losses.js";
import { decodeAll, rollOut } from "../../distill/rollouts.js";
import { byCompletion, listPrompts, listSequences, sizesOf } from "../../model/batch.js";
import { disposeModel, type LoadedModel, loadModel } from "../../model/loaded.js";
import { readParameters } from "../../model/parameters.js";
import { batchTensors, completionLogits } from "../../model/scoring.js";
import { sampleCompletions } from "../../student/sample.js";
import { fixture } from "../model/golden.js";

let model: LoadedModel;
beforeAll(async () => {
  vi.stubEnv("HEDDLE_JIT", "0");
  model = await loadModel(fixture("arithmetic/student"));
});
afterAll(() => {
  disposeModel(model);
  vi.unstubAllEnvs();
});

const options = { system: "error", maxNewTokens: 10 } as const;
const idOf = (token: string): number => model.folder.tokenizer!.idOf(token)!;

describe("encodePrompts", () => {
  test("renders one chat turn, opens the model's, and begins with one <bos>", async () => {
    const rows = [{ prompt: "1+2=" }, { messages: [{ role: "user", content: "1+2=" }] }];
    const encoded = await encodePrompts(model.folder, rows, options);
    const text = "<start_of_turn>user\n1+2=<end_of_turn>\n<start_of_turn>model\n";
    const expected = [idOf("<bos>"), ...(await model.folder.tokenizer!.encode(text))];
    expect(encoded).toEqual(rows.map((row) => ({ row, prompt: expected, read: { system: "error" } })));
    expect(expected.filter((id) => id === idOf("<bos>")).length).toBe(1);
  });

  test("leaves room for a completion in the context of 128 tokens, and names the row that does not", async () => {
    const row = { prompt: "1+2=", [place]: "data.jsonl:3" };
    const [{ prompt }] = (await encodePrompts(model.folder, [row], options)) as [EncodedRow];
    const room = 128 - prompt.length;
    await expect(encodePrompts(model.folder, [row], { ...options, maxNewTokens: room })).resolves.toHaveLength(1);
    await expect(encodePrompts(model.folder, [row], { ...options, maxNewTokens: room + 1 })).rejects.toThrow(
      expect.objectContaining({
        name: "DataError",
        message:
          `data.jsonl:3: the prompt has ${prompt.length} tokens; with max_new_tokens ${room + 1} ` +
          "expected at most 128, the model's max_position_embeddings",
      }),
    );
  });
});

describe("encodeCompletions", () => {
  const encode = (row: Partial<Row>, maxNewTokens: number) =>
    encodeCompletions(
      model.folder,
      [{ row: { prompt: "1+2=", ...row }, prompt: [], read: options }],
      maxNewTokens,
    ).then(([ids]) => ids!);

  test("ends a turn with <end_of_turn>, which counts among max_new_tokens", async () => {
    const text = await model.folder.tokenizer!.encode("12345");
    expect(text.length).toBeGreaterThan(1);
    const whole = [...text, idOf("<end_of_turn>")];
    expect(await encode({ completion: "12345" }, 10)).toEqual(whole);
    expect(await encode({ completion: "12345" }, whole.length)).toEqual(whole);
    expect(await encode({ completion: "12345" }, whole.length - 1)).toEqual(text);
  });

  test("takes what the assistant says last for the completion", async () => {
    const messages = [
      { role: "user", content: "1+2=" },
      { role: "assistant", content: "3" },
    ];
    expect(await encode({ messages }, 10)).toEqual(await encode({ completion: "3" }, 10));
  });

  test("names a row that has none", async () => {
    const row = { prompt: "1+2=", [place]: "data.jsonl:3" };
    await expect(encode(row, 10)).rejects.toThrow(
      expect.objectContaining({
        name: "DataError",
        message: "data.jsonl:3: completion: expected the text to learn, got none",
      }),
    );
  });
});

describe("rollOut", () => {
  let prompts: (readonly number[])[];
  beforeAll(async () => {
    const rows = [{ prompt: "1+2=" }, { prompt: "(10*10)/100=" }];
    prompts = (await encodePrompts(model.folder, rows, options)).map(({ prompt }) => prompt);
  });
  const sizes = () => sizesOf(prompts, { rows: 2, samples: 3, maxNewTokens: 6 });

  test("samples from the whole distribution, up to the folder's stop tokens", () => {
    const { completions } = rollOut(model, prompts, sizes(), { temperature: 3, seed: 4 });
    const whole = { samples: 3, maxNewTokens: 6, temperature: 3, topK: 0, topP: 1, logprobTemperature: 3, seed: 4 };
    const { config, stopIds } = model.folder;
    expect(stopIds).toEqual([idOf("<eos>"), idOf("<end_of_turn>")]);
    const list = listPrompts(prompts, sizes());
    expect(completions).toEqual(sampleCompletions(model.parameters, config, list, { ...whole, stopIds }));
  });

  test.each([1, 3])("log-probabilities at temperature %i are those of the batch to learn from", (temperature) => {
    const { sequences, completions } = rollOut(model, prompts, sizes(), { temperature, seed: 4 });
    const batch = listSequences(sequences, sizes());
    const scored = tf.tidy(() => {
      const tensors = batchTensors(batch);
      const logits_WV = completionLogits(readParameters(model.parameters), model.folder.config, tensors);
      return byCompletion(batch, logProbOf(logits_WV.div(temperature), tensors.target_W).dataSync() as Float32Array);
    });
    const differences = completions.flatMap(({ logprobs }, c) => logprobs.map((x, n) => Math.abs(x - scored[c]![n]!)));
    expect(differences.length).toBe(batch.targets.filter((_, w) => batch.counted[w] === 1).length);
    expect(Math.max(...differences)).toBeLessThan(1e-4);
  });

  test("gives sequences to learn from: each prompt with its completions", () => {
    const { sequences, completions } = rollOut(model, prompts, sizes(), { temperature: 3, seed: 4 });
    const ids = completions.map((completion) => completion.ids);
    expect(sequences).toEqual([
      { prompt: prompts[0], completions: ids.slice(0, 3) },
      { prompt: prompts[1], completions: ids.slice(3) },
    ]);
  });
});

test("decodeAll leaves special tokens out", async () => {
  const ids = [...(await model.folder.tokenizer!.encode("42")), idOf("<end_of_turn>")];
  const stop = { ids: [idOf("<eos>")], logprobs: [-1] };
  expect(await decodeAll(model.folder, [{ ids, logprobs: ids.map(() => -1) }, stop])).toEqual(["42", ""]);
});

test("the mean length of 1, 2 and 6 tokens is 3", () => {
  expect(meanLength([[7], [7, 8], [1, 2, 3, 4, 5, 6]])).toBe(3);
});
