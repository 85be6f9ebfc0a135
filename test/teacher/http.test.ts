import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { describe, expect, test } from "vitest";
import { httpTeacher } from "../../teacher/http.js";
import type { Fetch } from "../../teacher/http-call.js";
import { type TeacherAppOptions, teacherApp } from "../../teacher/server.js";
import { fakeRequests, fakeScores, VOCAB_SIZE } from "./fake-model.js";

const url = "http://teacher:8000";
const tokenizerSha256 = "ab".repeat(32);

const heddle = (options: Partial<TeacherAppOptions> = {}): Fetch => {
  const app = teacherApp({
    modelName: "tiny",
    vocabSize: VOCAB_SIZE,
    maxModelLen: 64,
    maxLogprobs: VOCAB_SIZE,
    tokenizerSha256,
    encode: null,
    score: async (requests, k) => requests.map((request) => fakeScores(request, k)),
    ...options,
  });
  return async (to, init) => app.request(to, init);
};

type Body = { prompt: number[][]; prompt_logprobs: number };
type Answer = { status: number; json: unknown };

/** vLLM as far as scoring goes: no vocabulary, no tokenizer, no tail, every position. `answer` may step in. */
function vllm(answer: (body: Body) => Answer | undefined | Promise<Answer | undefined> = () => undefined) {
  const bodies: Body[] = [];
  const fetch: Fetch = async (to, init) => {
    const reply = (status: number, json: unknown) => ({
      status,
      text: async () => (typeof json === "string" ? json : JSON.stringify(json)),
    });
    if (to === `${url}/health`) return reply(200, "");
    if (to === `${url}/v1/models`) return reply(200, { object: "list", data: [{ id: "gemma", max_model_len: 64 }] });
    const body = JSON.parse(init.body!) as Body;
    bodies.push(body);
    const own = await answer(body);
    if (own) return reply(own.status, own.json);
    return reply(200, { choices: body.prompt.map((ids, index) => vllmChoice(ids, index, body.prompt_logprobs)) });
  };
  return { fetch, bodies };
}

function vllmChoice(ids: number[], index: number, k: number) {
  const scores = fakeScores({ ids, from: 1 }, k);
  const rows = ids.slice(1).map((actualId, i) => {
    const top = [...scores.ids.slice(i * k, (i + 1) * k)].map((id, column) => [
      id,
      { logprob: scores.logprobs[i * k + column], rank: column + 1, decoded_token: `t${id}` },
    ]);
    return Object.fromEntries([[actualId, { logprob: scores.actual[i], rank: k + 2, decoded_token: "" }], ...top]);
  });
  return { index, text: "x", finish_reason: "length", prompt_logprobs: [null, ...rows] };
}

describe("httpTeacher with heddle's server", () => {
  test.each([0, 1, 4, VOCAB_SIZE])("gives the bits that the server's model gave, in order, for k = %i", async (k) => {
    const teacher = await httpTeacher(url, { fetch: heddle() });
    const requests = fakeRequests(100);
    expect(await teacher.score(requests, k)).toEqual(requests.map((request) => fakeScores(request, k)));
    expect([teacher.modelName, teacher.vocabSize]).toEqual(["tiny", VOCAB_SIZE]);
    await teacher.close();
  });

  test("asks only for the positions that are scored", async () => {
    const seen: unknown[] = [];
    const app = heddle();
    const fetch: Fetch = (to, init) => {
      if (init.body) seen.push(JSON.parse(init.body));
      return app(to, init);
    };
    const teacher = await httpTeacher(url, { fetch });
    await teacher.score([{ ids: [1, 2, 3], from: 2 }], 3);
    expect(seen).toEqual([
      {
        model: "tiny",
        prompt: [[1, 2, 3]],
        max_tokens: 1,
        temperature: 0,
        prompt_logprobs: 3,
        prompt_logprobs_start: [2],
      },
    ]);
  });

  test("a student with another vocabulary or tokenizer is refused", async () => {
    const student = { vocabSize: VOCAB_SIZE, tokenizerSha256 };
    await expect(httpTeacher(url, { fetch: heddle(), student: { ...student, vocabSize: 12 } })).rejects.toThrow(
      "http://teacher:8000: tiny has a vocabulary of 11, the student one of 12. " +
        "Student and teacher must share token ids: use a teacher of the student's family",
    );
    await expect(
      httpTeacher(url, { fetch: heddle(), student: { ...student, tokenizerSha256: "cd".repeat(32) } }),
    ).rejects.toThrow(
      "http://teacher:8000: tiny has another tokenizer (sha256 abababababab...) than the student (cdcdcdcdcdcd...). " +
        "Student and teacher must share token ids: use a teacher of the student's family",
    );
    await (await httpTeacher(url, { fetch: heddle(), student })).close();
  });

  test("a request that the server refuses fails at once, with the server's words", async () => {
    const teacher = await httpTeacher(url, { fetch: heddle() });
    await expect(teacher.score([{ ids: [1, 99], from: 1 }], 2)).rejects.toMatchObject({
      name: "TeacherError",
      status: 400,
      message: "POST http://teacher:8000/v1/completions: 400: prompt[0][1]: expected a token id from 0 to 10, got 99",
    });
  });
});

describe("httpTeacher with vLLM", () => {
  test("reads k or k + 1 tokens a position and computes the tail", async () => {
    const server = vllm();
    const teacher = await httpTeacher(`${url}/v1/`, { fetch: server.fetch });
    const requests = fakeRequests(20);
    const scores = await teacher.score(requests, 4);
    for (const [i, request] of requests.entries()) {
      const { tail, ...exact } = fakeScores(request, 4);
      expect(scores[i]).toMatchObject(exact);
      for (const [j, ln] of tail.entries()) expect(scores[i]!.tail[j]).toBeCloseTo(ln, 4);
    }
    expect(teacher.vocabSize).toBeNull();
    expect(server.bodies[0]).toEqual({
      model: "gemma",
      prompt: requests.map(({ ids }) => ids),
      max_tokens: 1,
      temperature: 0,
      prompt_logprobs: 4,
    });
  });

  test("the student's vocabulary tells when k is all of it", async () => {
    const student = { vocabSize: VOCAB_SIZE, tokenizerSha256 };
    const teacher = await httpTeacher(url, { fetch: vllm().fetch, student });
    const [scores] = await teacher.score([{ ids: [1, 2], from: 1 }], VOCAB_SIZE);
    expect(scores!.tail[0]).toBe(-Infinity);
    await expect(teacher.score([], 12)).rejects.toThrow(
      "top-k of the teacher: expected a whole number from 0 to 11, got 12",
    );
  });

  test("a request holds at most 32 prompts and 2 million log-probabilities", async () => {
    const answer = () => ({ status: 400, json: { message: "enough" } });
    const prompts = async (tokens: number, count: number, k: number) => {
      const server = vllm(answer);
      const teacher = await httpTeacher(url, { fetch: server.fetch, concurrency: 100 });
      const one = { ids: Array<number>(tokens).fill(1), from: tokens - 1 };
      await teacher.score(Array<typeof one>(count).fill(one), k).catch(() => {});
      return server.bodies.map((body) => body.prompt.length);
    };
    expect(await prompts(10, 70, 5)).toEqual([32, 32, 6]);
    expect(await prompts(100, 5, 9_999)).toEqual([2, 2, 1]);
  });

  test("a single prompt that no answer could hold is an error before anything is sent", async () => {
    const server = vllm();
    const teacher = await httpTeacher(url, { fetch: server.fetch });
    await expect(teacher.score([{ ids: Array<number>(100).fill(1), from: 1 }], 256_000)).rejects.toThrow(
      "http://teacher:8000: 100 tokens with 256000 log-probabilities each do not fit into one answer (at most 6000000 " +
        "numbers). Use a smaller top-k, or a teacher in this process",
    );
    expect(server.bodies).toHaveLength(0);
  });

  test("choices in another order are put right; a missing or doubled one is an error", async () => {
    const reordered = (indices: number[]) => (body: Body) => ({
      status: 200,
      json: { choices: indices.map((index) => vllmChoice(body.prompt[index]!, index, body.prompt_logprobs)) },
    });
    const requests = fakeRequests(3);
    const score = async (indices: number[]) =>
      (await httpTeacher(url, { fetch: vllm(reordered(indices)).fetch })).score(requests, 1);
    const scores = await score([2, 0, 1]);
    expect(scores.map(({ actual }) => actual)).toEqual(requests.map((request) => fakeScores(request, 1).actual));
    await expect(score([0, 1])).rejects.toThrow("http://teacher:8000/v1/completions: 2 choices for 3 prompts");
    await expect(score([0, 1, 1])).rejects.toThrow(
      "http://teacher:8000/v1/completions: choice with index 1, which is none or twice there",
    );
  });

  test.each([
    [{ error: { message: "Requested prompt logprobs of 100, which is greater than max allowed: 20" } }],
    [{ object: "error", message: "Requested prompt logprobs of 100, which is greater than max allowed: 20" }],
  ])("more than --max-logprobs: the server's words and what to do, from %j", async (json) => {
    const teacher = await httpTeacher(url, { fetch: vllm(() => ({ status: 400, json })).fetch });
    await expect(teacher.score([{ ids: [1, 2], from: 1 }], 100)).rejects.toThrow(
      "POST http://teacher:8000/v1/completions: 400: Requested prompt logprobs of 100, which is greater than max allowed: 20 " +
        "(asked for the 100 likeliest tokens; vLLM gives up to 20 unless it is started with --max-logprobs)",
    );
  });

  test("an answer that is no JSON, as Python's NaN makes it, is an error that says where", async () => {
    const json = '{"choices": [{"index": 0, "prompt_logprobs": [null, {"1": {"logprob": NaN}}]}]}';
    const teacher = await httpTeacher(url, { fetch: vllm(() => ({ status: 200, json })).fetch });
    await expect(teacher.score([{ ids: [1, 1], from: 1 }], 1)).rejects.toThrow(
      /^http:\/\/teacher:8000\/v1\/completions: the answer is not JSON: /,
    );
  });
});

describe("trying again", () => {
  const request = { ids: [1, 2, 3], from: 1 };

  test.each([408, 429, 500, 503])("%i is tried again until it works", async (status) => {
    let failures = 1;
    const notes: string[] = [];
    const server = vllm(() => (failures-- > 0 ? { status, json: { error: { message: "busy" } } } : undefined));
    const teacher = await httpTeacher(url, { fetch: server.fetch, onRetry: (note) => notes.push(note) });
    expect(await teacher.score([request], 2)).toHaveLength(1);
    expect(server.bodies).toHaveLength(2);
    expect(notes).toEqual([`POST http://teacher:8000/v1/completions: ${status}: busy; trying again for 120 s`]);
  });

  test("gives up after retryForMs, with the last problem", async () => {
    const server = vllm(() => ({ status: 503, json: "<html>bad gateway</html>" }));
    const teacher = await httpTeacher(url, { fetch: server.fetch, retryForMs: 300 });
    await expect(teacher.score([request], 2)).rejects.toMatchObject({
      name: "TeacherUnavailableError",
      message: "POST http://teacher:8000/v1/completions: no answer for 0.3 s: 503: <html>bad gateway</html>",
    });
  });

  test("a silent server is given up after timeoutMs and asked again", async () => {
    let isFirst = true;
    const server = vllm();
    const fetch: Fetch = (to, init) => {
      if (!to.endsWith("completions") || !isFirst) return server.fetch(to, init);
      isFirst = false;
      return new Promise((_, reject) => init.signal.addEventListener("abort", () => reject(init.signal.reason)));
    };
    const notes: string[] = [];
    const teacher = await httpTeacher(url, { fetch, timeoutMs: 50, onRetry: (note) => notes.push(note) });
    expect(await teacher.score([request], 2)).toHaveLength(1);
    expect(notes).toEqual(["POST http://teacher:8000/v1/completions: no answer within 0.05 s; trying again for 120 s"]);
  });

  test("the first refusal ends the other requests of a call", async () => {
    const server = vllm(async ({ prompt }) => {
      if (prompt[0]![0] === 9) return { status: 400, json: { message: "no" } };
      await new Promise((resolve) => setTimeout(resolve, 50));
      return undefined;
    });
    const teacher = await httpTeacher(url, { fetch: server.fetch, concurrency: 2 });
    const requests = Array.from({ length: 320 }, (_, i) => ({ ids: [i === 32 ? 9 : 1, 2], from: 1 }));
    await expect(teacher.score(requests, 1)).rejects.toThrow("400: no");
    await new Promise((resolve) => setTimeout(resolve, 150));
    expect(server.bodies).toHaveLength(2);
  });

  test("close() ends what is under way", async () => {
    const teacher = await httpTeacher(url, { fetch: vllm(() => ({ status: 503, json: {} })).fetch });
    const scoring = teacher.score([request], 1);
    await Promise.all([
      expect(scoring).rejects.toThrow("the connection to the teacher http://teacher:8000 was closed"),
      teacher.close(),
    ]);
  });

  test("no concurrency above the limit", async () => {
    let inFlight = 0;
    let most = 0;
    const server = vllm(async () => {
      most = Math.max(most, ++inFlight);
      await new Promise((resolve) => setTimeout(resolve, 5));
      inFlight--;
      return undefined;
    });
    const teacher = await httpTeacher(url, { fetch: server.fetch, concurrency: 3 });
    await teacher.score(Array<typeof request>(320).fill(request), 1);
    expect(most).toBe(3);
  });
});

describe("the address", () => {
  test("must be a URL", async () => {
    await expect(httpTeacher("localhost:8000")).rejects.toThrow(
      'teacher address "localhost:8000": expected a URL such as http://localhost:8000',
    );
  });

  test("nobody there: refused for retryForMs, then an error that says so", async () => {
    const listener = createServer().listen(0, "127.0.0.1");
    await once(listener, "listening");
    const { port } = listener.address() as AddressInfo;
    await new Promise((resolve) => listener.close(resolve));
    await expect(httpTeacher(`http://127.0.0.1:${port}`, { retryForMs: 0 })).rejects.toThrow(
      `GET http://127.0.0.1:${port}/health: no answer for 0 s: connect ECONNREFUSED 127.0.0.1:${port}`,
    );
  });

  test("a server without models, and one without /health", async () => {
    const none: Fetch = async () => ({ status: 200, text: async () => '{"data": []}' });
    await expect(httpTeacher(url, { fetch: none })).rejects.toThrow(
      'http://teacher:8000/v1/models: expected {"data": [{"id": ...}]}, got no model',
    );
    const server = vllm();
    const noHealth: Fetch = async (to, init) =>
      to.endsWith("/health") ? { status: 404, text: async () => "" } : server.fetch(to, init);
    expect((await httpTeacher(url, { fetch: noHealth })).modelName).toBe("gemma");
  });
});
