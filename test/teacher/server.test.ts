import { describe, expect, test } from "vitest";
import { ScorerUnavailable, type TeacherAppOptions, teacherApp } from "../../teacher/server.js";
import { fakeScores, VOCAB_SIZE } from "./fake-model.js";

const options: TeacherAppOptions = {
  modelName: "tiny",
  vocabSize: VOCAB_SIZE,
  maxModelLen: 6,
  maxLogprobs: VOCAB_SIZE,
  tokenizerSha256: "ab".repeat(32),
  encode: null,
  score: async (requests, k) => requests.map((request) => fakeScores(request, k)),
};
const app = teacherApp(options);

const post = (body: unknown, to = app) =>
  to.request("/v1/completions", { method: "POST", body: typeof body === "string" ? body : JSON.stringify(body) });

describe("GET /v1/models", () => {
  test("names the model in OpenAI's shape, with its vocabulary and tokenizer", async () => {
    const body = (await (await app.request("/v1/models")).json()) as { data: [{ created: number }] };
    expect(body).toEqual({
      object: "list",
      data: [
        {
          id: "tiny",
          object: "model",
          created: expect.any(Number),
          owned_by: "heddle",
          max_model_len: 6,
          vocab_size: 11,
          tokenizer_sha256: "ab".repeat(32),
        },
      ],
    });
    expect(Math.abs(body.data[0].created - Date.now() / 1000)).toBeLessThan(60);
  });
});

describe("POST /v1/completions", () => {
  test("answers in vLLM's shape", async () => {
    const response = await post({
      model: "tiny",
      prompt: [3, 1, 4],
      max_tokens: 1,
      temperature: 0,
      prompt_logprobs: 2,
    });
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("application/json");
    const { logprobs, ids, actual, tail } = fakeScores({ ids: [3, 1, 4], from: 1 }, 2);
    const row = (i: number, actualId: number) => ({
      [actualId]: { logprob: expect.closeTo(actual[i]!, 6), rank: 3 },
      [ids[2 * i]!]: { logprob: expect.closeTo(logprobs[2 * i]!, 6), rank: 1 },
      [ids[2 * i + 1]!]: { logprob: expect.closeTo(logprobs[2 * i + 1]!, 6), rank: 2 },
    });
    expect(await response.json()).toEqual({
      id: expect.stringMatching(/^cmpl-/),
      object: "text_completion",
      created: expect.any(Number),
      model: "tiny",
      choices: [
        {
          index: 0,
          text: "",
          logprobs: null,
          finish_reason: "length",
          stop_reason: null,
          prompt_logprobs: [null, row(0, 1), row(1, 4)],
          prompt_logprobs_tail: [null, expect.closeTo(tail[0]!, 6), expect.closeTo(tail[1]!, 6)],
        },
      ],
      usage: { prompt_tokens: 3, completion_tokens: 0, total_tokens: 3 },
    });
  });

  test("a list of prompts is one choice each, in order; -1 is the whole vocabulary", async () => {
    const body = (await (await post({ prompt: [[1, 2], [3], [4, 5, 6]], prompt_logprobs: -1 })).json()) as {
      choices: { index: number; prompt_logprobs: (object | null)[] }[];
      usage: object;
    };
    expect(body.choices.map((choice) => choice.index)).toEqual([0, 1, 2]);
    expect(body.choices.map((choice) => choice.prompt_logprobs.length)).toEqual([2, 1, 3]);
    expect(Object.keys(body.choices[0]!.prompt_logprobs[1]!)).toHaveLength(VOCAB_SIZE);
    expect(body.usage).toEqual({ prompt_tokens: 6, completion_tokens: 0, total_tokens: 6 });
  });

  test("prompt_logprobs_start leaves out the positions before it", async () => {
    const request = {
      prompt: [
        [1, 2, 3],
        [4, 5, 6],
      ],
      prompt_logprobs: 1,
      prompt_logprobs_start: [2, 1],
    };
    const body = (await (await post(request)).json()) as { choices: { prompt_logprobs: (object | null)[] }[] };
    const isScored = body.choices.map((choice) => choice.prompt_logprobs.map((row) => row !== null));
    expect(isScored).toEqual([
      [false, false, true],
      [false, true, true],
    ]);
  });

  test("return_token_ids repeats the ids; other fields of vLLM's are ignored", async () => {
    const request = { prompt: [1, 2], prompt_logprobs: 0, return_token_ids: true, echo: true, logprobs: 1, seed: 3 };
    const body = (await (await post(request)).json()) as {
      choices: [{ prompt_token_ids: number[]; token_ids: number[] }];
    };
    expect(body.choices[0].prompt_token_ids).toEqual([1, 2]);
    expect(body.choices[0].token_ids).toEqual([]);
  });

  test("texts are encoded where there is a tokenizer", async () => {
    const withTokenizer = teacherApp({ ...options, encode: async (text) => [...text].map(Number) });
    const body = { prompt_logprobs: 0, return_token_ids: true };
    const idsOf = async (prompt: unknown) => {
      const response = await post({ ...body, prompt }, withTokenizer);
      const { choices } = (await response.json()) as { choices: { prompt_token_ids: number[] }[] };
      return choices.map((choice) => choice.prompt_token_ids);
    };
    expect(await idsOf("123")).toEqual([[1, 2, 3]]);
    expect(await idsOf(["12", "34"])).toEqual([
      [1, 2],
      [3, 4],
    ]);
  });

  const ok = { prompt: [1, 2], prompt_logprobs: 1 };
  test.each<[string, unknown, string, string | null, string | null]>([
    ["no object", [1], "expected a JSON object, got [1]", null, null],
    [
      "an unknown model",
      { ...ok, model: "gpt" },
      'the model "gpt" does not exist, this server has "tiny"',
      "model",
      "model_not_found",
    ],
    ["no prompt", { prompt_logprobs: 1 }, "prompt: missing", "prompt", null],
    ["an empty prompt", { ...ok, prompt: [] }, "prompt: is empty", "prompt", null],
    ["an empty prompt in a list", { ...ok, prompt: [[1], []] }, "prompt[1]: is empty", "prompt", null],
    [
      "a prompt that is an object",
      { ...ok, prompt: { a: 1 } },
      'prompt: expected token ids, a text, or a list of either, got {"a":1}',
      "prompt",
      null,
    ],
    [
      "a list with an object",
      { ...ok, prompt: [[1], {}] },
      "prompt[1]: expected token ids or a text, got {}",
      "prompt",
      null,
    ],
    [
      "an id outside the vocabulary",
      { ...ok, prompt: [[1], [2, 11]] },
      "prompt[1][1]: expected a token id from 0 to 10, got 11",
      "prompt",
      null,
    ],
    ["a negative id", { ...ok, prompt: [-1] }, "prompt[0]: expected a token id from 0 to 10, got -1", "prompt", null],
    ["half an id", { ...ok, prompt: [1, 0.5] }, "prompt[1]: expected a token id from 0 to 10, got 0.5", "prompt", null],
    [
      "a text in a list of ids",
      { ...ok, prompt: [1, "2"] },
      'prompt[1]: expected a token id from 0 to 10, got "2"',
      "prompt",
      null,
    ],
    [
      "a text without a tokenizer",
      { ...ok, prompt: "hi" },
      "prompt: is a text, this server takes token ids only",
      "prompt",
      null,
    ],
    [
      "a prompt that is too long",
      { ...ok, prompt: [[1, 2, 3, 4, 5, 6, 7]] },
      "prompt[0]: has 7 tokens, this model takes at most 6",
      "prompt",
      "context_length_exceeded",
    ],
    [
      "no prompt_logprobs",
      { prompt: [1] },
      "prompt_logprobs: missing. This server scores prompts: set it to the number of likeliest tokens wanted a position",
      "prompt_logprobs",
      null,
    ],
    [
      "too many prompt_logprobs",
      { ...ok, prompt_logprobs: 12 },
      "prompt_logprobs: expected 0 to 11 (the vocabulary), or -1 for all, got 12",
      "prompt_logprobs",
      null,
    ],
    [
      "prompt_logprobs of the wrong type",
      { ...ok, prompt_logprobs: "5" },
      'prompt_logprobs: expected 0 to 11 (the vocabulary), or -1 for all, got "5"',
      "prompt_logprobs",
      null,
    ],
    [
      "generation",
      { ...ok, max_tokens: 16 },
      "max_tokens: got 16, but generation is not served yet: use 0 or 1",
      "max_tokens",
      null,
    ],
    ["negative max_tokens", { ...ok, max_tokens: -1 }, "max_tokens: expected 0 or 1, got -1", "max_tokens", null],
    ["streaming", { ...ok, stream: true }, "stream: scores are not streamed, leave it out", "stream", null],
    ["several choices", { ...ok, n: 2 }, "n: expected 1, got 2", "n", null],
    [
      "too few starts",
      { ...ok, prompt_logprobs_start: [1, 1] },
      "prompt_logprobs_start: has 2 numbers for 1 prompts",
      "prompt_logprobs_start",
      null,
    ],
    [
      "a start past the end",
      { ...ok, prompt_logprobs_start: 3 },
      "prompt_logprobs_start: expected 1 to 2 for prompt 0, got 3",
      "prompt_logprobs_start",
      null,
    ],
  ])("400 for %s", async (_, body, message, param, code) => {
    const response = await post(body);
    expect(response.status).toBe(400);
    expect(await response.json()).toEqual({ error: { message, type: "invalid_request_error", param, code } });
  });

  test("400 for a body that is not JSON", async () => {
    const response = await post("{");
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({
      error: { message: expect.stringMatching(/^the body is not JSON: /), type: "invalid_request_error" },
    });
  });

  test("400 above the server's own limit, and for an answer that no client could read", async () => {
    const limited = teacherApp({ ...options, maxLogprobs: 5 });
    expect(await (await post({ ...ok, prompt_logprobs: -1 }, limited)).json()).toMatchObject({
      error: { message: "prompt_logprobs: expected 0 to 5 (the limit of this server), got -1" },
    });
    const big = teacherApp({ ...options, vocabSize: 3_000_000, maxLogprobs: 3_000_000 });
    expect(await (await post({ prompt: [1, 2, 3, 4], prompt_logprobs: -1 }, big)).json()).toMatchObject({
      error: {
        message:
          "prompt_logprobs 3000000 over these prompts is 9000000 log-probabilities, at most 8000000 fit into one answer: " +
          "send fewer prompts, or ask for fewer",
      },
    });
  });

  test("503 while the model loads, on /health too; /v1/models answers", async () => {
    const loading = teacherApp({ ...options, unavailable: () => "the model is loading" });
    const error = { message: "the model is loading", type: "service_unavailable_error", param: null, code: null };
    for (const response of [await post(ok, loading), await loading.request("/health")]) {
      expect(response.status).toBe(503);
      expect(await response.json()).toEqual({ error });
    }
    expect((await loading.request("/v1/models")).status).toBe(200);
  });

  test("503 when the scorer dies over the request, 500 when it fails", async () => {
    const failing = (error: Error) => teacherApp({ ...options, score: () => Promise.reject(error) });
    const gone = await post(ok, failing(new ScorerUnavailable("the scorer was killed")));
    expect(gone.status).toBe(503);
    expect(await gone.json()).toMatchObject({ error: { message: "the scorer was killed" } });
    const broken = await post(ok, failing(new Error("out of memory")));
    expect(broken.status).toBe(500);
    expect(await broken.json()).toEqual({
      error: { message: "scoring failed: out of memory", type: "server_error", param: null, code: null },
    });
  });
});

describe("other routes", () => {
  test("/health is 200 and empty", async () => {
    const response = await app.request("/health");
    expect(response.status).toBe(200);
    expect(await response.text()).toBe("");
  });

  test("an unknown route is 404 in the same shape", async () => {
    const response = await app.request("/v1/chat/completions", { method: "POST", body: "{}" });
    expect(response.status).toBe(404);
    expect(await response.json()).toEqual({
      error: {
        message:
          "POST /v1/chat/completions: no such route. There are GET /health, GET /v1/models, POST /v1/completions",
        type: "invalid_request_error",
        param: null,
        code: null,
      },
    });
  });
});
