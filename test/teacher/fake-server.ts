/** A process for tests to kill: heddle's server with the fake model. Argument: the port. Says "listening PORT". */
import { once } from "node:events";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { createAdaptorServer } from "@hono/node-server";
import { teacherApp } from "../../teacher/server.js";
import { fakeScores, VOCAB_SIZE } from "./fake-model.js";

const app = teacherApp({
  modelName: "tiny",
  vocabSize: VOCAB_SIZE,
  maxModelLen: 64,
  maxLogprobs: VOCAB_SIZE,
  tokenizerSha256: "ab".repeat(32),
  encode: null,
  score: async (requests, k) => {
    await sleep(30);
    return requests.map((request) => fakeScores(request, k));
  },
});
const server = createAdaptorServer({ fetch: app.fetch }) as Server;
server.listen(Number(process.argv[2]), "127.0.0.1");
await once(server, "listening");
process.stdout.write(`listening ${(server.address() as AddressInfo).port}\n`);
