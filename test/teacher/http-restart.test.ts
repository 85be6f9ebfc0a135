import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, test } from "vitest";
import { httpTeacher } from "../../teacher/http.js";
import { teacherApp } from "../../teacher/server.js";
import { fakeRequests, fakeScores, VOCAB_SIZE } from "./fake-model.js";

const script = fileURLToPath(new URL("../../dist/test/teacher/fake-server.js", import.meta.url));
let child: ChildProcess | undefined;
afterEach(() => {
  child?.kill("SIGKILL");
});

/** Starts the server process on a port (0: a free one) and returns the port. */
async function startServer(port: number): Promise<number> {
  child = spawn(process.execPath, [script, String(port)], { stdio: ["ignore", "pipe", "inherit"] });
  const [line] = (await once(createInterface(child.stdout!), "line")) as [string];
  return Number(line.split(" ")[1]);
}

const expected = (requests: ReturnType<typeof fakeRequests>, k: number) =>
  requests.map((request) => fakeScores(request, k));

describe("a server that is killed and started again", () => {
  test("in the middle of scoring: results are whole, in order, and bit for bit the same", async () => {
    const port = await startServer(0);
    const notes: string[] = [];
    const teacher = await httpTeacher(`http://127.0.0.1:${port}`, { onRetry: (note) => notes.push(note) });
    const requests = fakeRequests(640);
    const scoring = teacher.score(requests, 5);
    await sleep(80);
    child!.kill("SIGKILL");
    await once(child!, "exit");
    await sleep(1500);
    expect(notes.length).toBeGreaterThan(0);
    await startServer(port);
    expect(await scoring).toEqual(expected(requests, 5));
    await teacher.close();
  });

  test("between two calls, and before the first", async () => {
    const port = await startServer(0);
    child!.kill("SIGKILL");
    await once(child!, "exit");
    const connecting = httpTeacher(`http://127.0.0.1:${port}`);
    await sleep(300);
    await startServer(port);
    const teacher = await connecting;
    expect(await teacher.score(fakeRequests(3), 2)).toEqual(expected(fakeRequests(3), 2));
    child!.kill("SIGKILL");
    await once(child!, "exit");
    await startServer(port);
    expect(await teacher.score(fakeRequests(3), 2)).toEqual(expected(fakeRequests(3), 2));
    await teacher.close();
  });

  test("while it sends an answer: half an answer is asked for again", async () => {
    const app = teacherApp({
      modelName: "tiny",
      vocabSize: VOCAB_SIZE,
      maxModelLen: 64,
      maxLogprobs: VOCAB_SIZE,
      tokenizerSha256: "ab".repeat(32),
      encode: null,
      score: async (requests, k) => requests.map((request) => fakeScores(request, k)),
    });
    let asked = 0;
    const server = createServer(async (request, response) => {
      let body = "";
      for await (const chunk of request) body += chunk;
      const init = request.method === "POST" ? { method: "POST", body } : {};
      const answer = await (await app.request(request.url!, init)).text();
      if (request.method === "POST" && asked++ === 0) {
        response.writeHead(200, { "content-length": answer.length });
        response.write(answer.slice(0, answer.length / 2), () => response.destroy());
      } else {
        response.end(answer);
      }
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const teacher = await httpTeacher(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    expect(await teacher.score(fakeRequests(20), 5)).toEqual(expected(fakeRequests(20), 5));
    expect(asked).toBe(2);
    await teacher.close();
    server.close();
  });
});
