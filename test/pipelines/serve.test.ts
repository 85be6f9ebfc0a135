import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, test } from "vitest";
import { compiledModule } from "../../config/paths.js";
import { httpTeacher } from "../../teacher/http.js";
import { fakeRequests, fakeScores, VOCAB_SIZE } from "../teacher/fake-model.js";

/** What takes a moment may take longer where other processes run: of three times, once. */
const busy = { retry: 2 };

let server: ChildProcess | undefined;
let stderr = "";
afterEach(() => {
  server?.kill("SIGKILL");
  stderr = "";
});

function modelFolder(...files: string[]): string {
  const dir = mkdtempSync(join(tmpdir(), "heddle-serve-"));
  const config = { model_type: "gemma2", vocab_size: VOCAB_SIZE, max_position_embeddings: 40 };
  writeFileSync(join(dir, "config.json"), JSON.stringify(config));
  const words = { type: "WordLevel", vocab: { "<unk>": 0, a: 3, b: 4, "<bos>": 2 }, unk_token: "<unk>" };
  const bos = { id: 2, content: "<bos>", special: true, normalized: false, lstrip: false, rstrip: false };
  const tokenizer = {
    version: "1.0",
    added_tokens: [{ ...bos, single_word: false }],
    pre_tokenizer: { type: "Whitespace" },
  };
  writeFileSync(join(dir, "tokenizer.json"), JSON.stringify({ ...tokenizer, model: words }));
  for (const file of files) writeFileSync(join(dir, file), "");
  return dir;
}

function start(model: string, port = 0): ChildProcess {
  const script = compiledModule("test/pipelines/serve-stub.js").pathname;
  server = spawn(process.execPath, [script, model, String(port)], { stdio: ["ignore", "ignore", "pipe"] });
  server.stderr!.on("data", (data: Buffer) => {
    stderr += data;
  });
  return server;
}

/** Waits up to 100 s for a line on stderr. */
async function said(pattern: RegExp): Promise<RegExpMatchArray> {
  for (const endMs = Date.now() + 100_000; Date.now() < endMs; await sleep(20)) {
    const match = pattern.exec(stderr);
    if (match) return match;
    if (server!.exitCode !== null) throw new Error(`the server ended with ${server!.exitCode}: ${stderr}`);
  }
  throw new Error(`the server did not say ${pattern}: ${stderr}`);
}
const address = async () => (await said(/ready: (http:\S+)\/v1/))[1]!;

const post = (url: string, body: object) =>
  fetch(`${url}/v1/completions`, { method: "POST", body: JSON.stringify(body) });
const request = { prompt: [1, 2, 3], prompt_logprobs: 2 };
const seconds = (fromMs: number) => (performance.now() - fromMs) / 1000;
const childrenOf = (pid: number) => execFileSync("ps", ["-o", "pid=", "--ppid", String(pid)], { encoding: "utf8" });

/** A process that has ended and was not reaped by whoever inherited it is in state Z. */
function stateOf(pid: number): string {
  try {
    return /\) (\w)/.exec(readFileSync(`/proc/${pid}/stat`, "utf8"))![1]!;
  } catch {
    return "gone";
  }
}

describe("heddle serve", () => {
  test("says where it listens and scores; the model's name is the folder as given", async () => {
    const model = modelFolder();
    start(model);
    const url = await address();
    const teacher = await httpTeacher(url);
    expect([teacher.modelName, teacher.vocabSize]).toEqual([model, VOCAB_SIZE]);
    const requests = fakeRequests(50);
    expect(await teacher.score(requests, 4)).toEqual(requests.map((one) => fakeScores(one, 4)));
    await teacher.close();
    expect(stderr).toBe(
      `loading ${model}; ${url}/health says when it is ready\n` +
        `ready: ${url}/v1/completions scores with ${model} (Ctrl-C stops)\n`,
    );
  });

  test("texts get one <bos>", async () => {
    start(modelFolder());
    const body = { prompt: ["a b", "<bos>b"], prompt_logprobs: 0, return_token_ids: true };
    const { choices } = (await (await post(await address(), body)).json()) as {
      choices: { prompt_token_ids: number[] }[];
    };
    expect(choices.map((choice) => choice.prompt_token_ids)).toEqual([
      [2, 3, 4],
      [2, 4],
    ]);
  });

  test("/health and refusals are answered at once while the model computes", busy, async () => {
    start(modelFolder("block"));
    const url = await address();
    const scoring = post(url, request);
    await sleep(300);
    const startMs = performance.now();
    expect((await fetch(`${url}/health`)).status).toBe(200);
    expect((await post(url, { ...request, prompt: [] })).status).toBe(400);
    expect(seconds(startMs)).toBeLessThan(0.5);
    expect((await scoring).status).toBe(200);
  });

  test("the process that scores dies: 503 for what it had, then it is started again", async () => {
    start(modelFolder("crash-once"));
    const url = await address();
    const response = await post(url, request);
    expect(response.status).toBe(503);
    expect(await response.json()).toEqual({
      error: {
        message: "the process that runs TensorFlow ended with code 3. It wrote nothing to stderr",
        type: "service_unavailable_error",
        param: null,
        code: null,
      },
    });
    const health = await fetch(`${url}/health`);
    expect(health.status).toBe(503);
    const teacher = await httpTeacher(url);
    expect(await teacher.score([{ ids: [1, 2, 3], from: 1 }], 2)).toEqual([fakeScores({ ids: [1, 2, 3], from: 1 }, 2)]);
    await teacher.close();
  });

  test("a student's run outlives the crash", async () => {
    start(modelFolder("crash-once"));
    const teacher = await httpTeacher(await address());
    const requests = fakeRequests(40);
    expect(await teacher.score(requests, 3)).toEqual(requests.map((one) => fakeScores(one, 3)));
    await teacher.close();
  });

  test.each(["SIGINT", "SIGTERM"] as const)(
    "%s ends it within a second, with code 0, in the middle of a call",
    busy,
    async (signal) => {
      start(modelFolder("block"));
      const url = await address();
      const scoring = post(url, request).catch(() => "cut off");
      await sleep(300);
      const child = Number(childrenOf(server!.pid!).trim());
      const startMs = performance.now();
      server!.kill(signal);
      const [code] = (await once(server!, "exit")) as [number];
      expect(seconds(startMs)).toBeLessThan(1);
      expect(code).toBe(0);
      expect(await scoring).toBe("cut off");
      await sleep(700);
      expect(stateOf(child)).toMatch(/gone|Z/);
    },
  );

  test("a model that cannot be loaded ends it with the reason", async () => {
    const model = modelFolder("broken");
    start(model);
    const [code] = (await once(server!, "exit")) as [number];
    expect(code).toBe(1);
    expect(stderr).toContain(`${model}: model.safetensors is broken`);
  });

  test("a port that is taken is an error that says what to do", async () => {
    const other = createServer().listen(0, "127.0.0.1");
    await once(other, "listening");
    const { port } = other.address() as AddressInfo;
    start(modelFolder(), port);
    const [code] = (await once(server!, "exit")) as [number];
    expect(code).toBe(2);
    expect(stderr).toBe(
      `error: cannot listen on 127.0.0.1:${port}: another program listens there: stop it or take another --port\n`,
    );
    other.close();
  });
});
