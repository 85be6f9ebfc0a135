/** `heddle serve` with a real model, from the command line to the scores that a client reads. */
import { type ChildProcess, execFileSync } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readModelConfig } from "../../model/config.js";
import { openModel } from "../../model/load.js";
import { createParameters, disposeParameters } from "../../model/parameters.js";
import { loadWeights } from "../../model/weights.js";
import { batchingScore } from "../../teacher/batching.js";
import { httpTeacher } from "../../teacher/http.js";
import { scoreBatch } from "../../teacher/in-process.js";
import type { RemoteTeacher, ScoreRequest, TokenScores } from "../../teacher/teacher.js";
import { fixture } from "../model/golden.js";
import { newFolder, startHeddle } from "./command.js";

/** What takes a moment may take longer where other processes run: of three times, once. */
const busy = { retry: 2 };

const model = fixture("arithmetic/teacher");
const V = 384;

type Server = { process: ChildProcess; url: string; stderr: () => string };
const started: ChildProcess[] = [];
afterAll(() => {
  for (const server of started) server.kill("SIGKILL");
});

/** Starts the server on a free port and waits until it is ready. */
async function serve(...flags: string[]): Promise<Server> {
  const server = startHeddle(newFolder(), "serve", "--model", model, "--port", "0", ...flags);
  started.push(server);
  let stderr = "";
  server.stderr!.on("data", (data: Buffer) => {
    stderr += data;
  });
  for (;;) {
    const ready = /ready: (http:\S+)\/v1/.exec(stderr);
    if (ready) return { process: server, url: ready[1]!, stderr: () => stderr };
    if (server.exitCode !== null) throw new Error(`the server ended with ${server.exitCode}: ${stderr}`);
    await sleep(20);
  }
}

/** The process that computes. */
const childOf = ({ process: { pid } }: Server): number =>
  Number(execFileSync("ps", ["-o", "pid=", "--ppid", `${pid}`], { encoding: "utf8" }).trim());

/** Sequences of `shortest` to 128 tokens, of which at least the first is the prompt. From 97 on, all have one padded length. */
const sequences = (count: number, shortest = 2): ScoreRequest[] =>
  Array.from({ length: count }, (_, i) => {
    const length = shortest + ((i * 7) % (129 - shortest));
    return { ids: Array.from({ length }, (_, t) => (t === 0 ? 2 : (i * 31 + t * t * 5) % V)), from: 1 + (i % length) };
  });

function expectClose(got: TokenScores, want: TokenScores, limit: number): void {
  expect([got.k, got.ids.length, got.actual.length]).toEqual([want.k, want.ids.length, want.actual.length]);
  for (const key of ["actual", "logprobs", "tail"] as const) {
    const differences = Array.from(got[key], (x, i) => (x === want[key][i] ? 0 : Math.abs(x - want[key][i]!)));
    expect(Math.max(0, ...differences), key).toBeLessThan(limit);
  }
}

/** Scores of a teacher in this process, in the shapes of `--fixed-shapes --max-batch-tokens 512`. */
let inProcess: (requests: ScoreRequest[], k: number) => Promise<TokenScores[]>;
let release: () => void;
beforeAll(async () => {
  const config = await readModelConfig(model);
  const parameters = createParameters(await loadWeights(model, config));
  const options = { maxBatchTokens: 512, maxModelLen: 128, fixedShapes: true };
  const score = batchingScore(async (batch) => scoreBatch(parameters, config, batch), options);
  inProcess = (requests, k) => score(requests, k, new AbortController().signal);
  release = () => disposeParameters(parameters);
});
afterAll(() => release());

describe("a server", () => {
  let server: Server;
  beforeAll(async () => {
    server = await serve();
  });

  test("heddle's client gets the scores of a teacher in this process, but for the shapes: 1e-4", async () => {
    const teacher = await httpTeacher(server.url);
    const requests = sequences(40);
    const scores = await teacher.score(requests, 20);
    (await inProcess(requests, 20)).forEach((want, i) => {
      expectClose(scores[i]!, want, 1e-4);
    });
    await teacher.close();
  });

  test("a request as clients of vLLM send it: ids and texts, one entry a token", async () => {
    const { chat } = await openModel(model);
    const ids = await chat.promptIds([{ role: "user", content: "1+1=" }]);
    const text = chat.renderPrompt([{ role: "user", content: "1+1=" }]);
    const post = async (body: object) => {
      const response = await fetch(`${server.url}/v1/completions`, {
        method: "POST",
        headers: { "content-type": "application/json", authorization: "Bearer none" },
        body: JSON.stringify({ model, max_tokens: 1, temperature: 0, prompt_logprobs: 2, ...body }),
      });
      return (await response.json()) as { choices: { index: number; prompt_logprobs: (object | null)[] }[] };
    };
    const { choices } = await post({ prompt: [ids, ids.slice(0, 5)] });
    const [want] = await inProcess([{ ids, from: 1 }], 2);
    expect(choices.map(({ index, prompt_logprobs }) => [index, prompt_logprobs.length])).toEqual([
      [0, ids.length],
      [1, 5],
    ]);
    expect(choices[0]!.prompt_logprobs[0]).toBeNull();
    choices[0]!.prompt_logprobs.forEach((entry, t) => {
      if (t === 0) return;
      const tokens = entry as Record<string, { logprob: number; rank: number }>;
      expect(Math.abs(tokens[ids[t]!]!.logprob - want!.actual[t - 1]!)).toBeLessThan(1e-4);
      const likeliest = Object.entries(tokens).find(([, { rank }]) => rank === 1)!;
      expect(Number(likeliest[0])).toBe(want!.ids[2 * (t - 1)]);
      expect(Math.abs(likeliest[1].logprob - want!.logprobs[2 * (t - 1)]!)).toBeLessThan(1e-4);
    });
    expect((await post({ prompt: text })).choices[0]!.prompt_logprobs).toEqual(choices[0]!.prompt_logprobs);
  });

  test("/health answers at once while the model computes", busy, async () => {
    const teacher = await httpTeacher(server.url);
    let isScoring = true;
    const scoring = teacher.score(sequences(1000, 97), 8).finally(() => {
      isScoring = false;
    });
    const waits: number[] = [];
    while (isScoring) {
      const startMs = performance.now();
      expect((await fetch(`${server.url}/health`)).status).toBe(200);
      waits.push(performance.now() - startMs);
      await sleep(50);
    }
    expect((await scoring).length).toBe(1000);
    expect(waits.length).toBeGreaterThan(3);
    waits.sort((a, b) => a - b);
    expect(waits[Math.floor(waits.length / 2)]!).toBeLessThan(200);
    await teacher.close();
  });

  test("kill -9 of the process that computes, in the middle: the client gets its scores all the same", async () => {
    const teacher = await httpTeacher(server.url);
    const requests = sequences(800, 97);
    const scoring = teacher.score(requests, 8);
    await sleep(300);
    process.kill(childOf(server), "SIGKILL");
    const scores = await scoring;
    expect(server.stderr()).toContain("the process that runs TensorFlow was killed by SIGKILL");
    (await inProcess(requests.slice(0, 40), 8)).forEach((want, i) => {
      expectClose(scores[i]!, want, 1e-4);
    });
    expect(scores.length).toBe(800);
    await teacher.close();
  });

  test(
    "Ctrl-C ends it within a second, in the middle of a computation, and nothing is left running",
    busy,
    async () => {
      if (server.process.exitCode !== null) server = await serve();
      const body = JSON.stringify({ prompt: sequences(500, 97).map(({ ids }) => ids), prompt_logprobs: 20 });
      const scoring = fetch(`${server.url}/v1/completions`, { method: "POST", body }).then(
        () => "answered",
        () => "cut off",
      );
      await sleep(150);
      const child = childOf(server);
      const ended = once(server.process, "exit");
      const startMs = performance.now();
      server.process.kill("SIGINT");
      expect((await ended)[0]).toBe(0);
      expect(performance.now() - startMs).toBeLessThan(1000);
      expect(await scoring).toBe("cut off");
      await sleep(700);
      expect(execFileSync("ps", ["-A", "-o", "pid=,stat="], { encoding: "utf8" })).not.toMatch(
        new RegExp(`^ *${child} +[^Z]`, "m"),
      );
    },
  );
});

describe("with --fixed-shapes", () => {
  let server: Server;
  let teacher: RemoteTeacher;
  beforeAll(async () => {
    server = await serve("--fixed-shapes", "--max-batch-tokens", "512");
    teacher = await httpTeacher(server.url);
  });

  test.each([0, 1, 20, V])("the scores are those of a teacher in this process: k = %i", async (k) => {
    const requests = sequences(k === V ? 6 : 40);
    const scores = await teacher.score(requests, k);
    (await inProcess(requests, k)).forEach((want, i) => {
      expectClose(scores[i]!, want, 1e-5);
    });
  });

  test("the same sequence has the same bits, whatever else is being scored", async () => {
    const requests = sequences(24);
    const together = await teacher.score(requests, 4);
    for (const i of [0, 7, 23]) expect(await teacher.score([requests[i]!], 4)).toEqual([together[i]]);
  });

  test("SIGTERM ends it with code 0", async () => {
    await teacher.close();
    server.process.kill("SIGTERM");
    expect((await once(server.process, "exit"))[0]).toBe(0);
  });
});
