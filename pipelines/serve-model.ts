/** The server's own process: HTTP, the queue and signals. The model lives in a child. */
import { once } from "node:events";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { createAdaptorServer } from "@hono/node-server";
import { hubName } from "../hub/name.js";
import { languageModel, openWeights } from "../model/load.js";
import { loadTokenizer } from "../model/tokenizer.js";
import { batchingScore } from "../teacher/batching.js";
import type { ServedModel } from "../teacher/completion-request.js";
import { teacherApp } from "../teacher/server.js";
import type { TokenScores } from "../teacher/teacher.js";
import { tokenizerSha256 } from "../teacher/tokenizer-hash.js";
import type { ModelOptions } from "./encoded-rows.js";
import { UserError } from "./errors.js";
import { startHost } from "./process.js";
import { restartingHost } from "./restarting-host.js";

export interface ServeOptions extends ModelOptions {
  host: string;
  /** 0: any free one. */
  port: number;
  /** Largest prompt_logprobs; -1: the vocabulary. */
  maxLogprobs: number;
  maxBatchTokens: number;
  fixedShapes: boolean;
}

const STOP_SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
/** A child in the middle of a call ends itself when this process has gone; nothing it does is worth waiting for. */
const CHILD_GRACE_MS = 300;

/**
 * Serves until Ctrl-C or SIGTERM, then ends the process with code 0. `task` is the compiled module of the child: its
 * open(ModelOptions) returns the function from a Batch to TokenScores, one for each of the batch's requests.
 */
export async function serveModel(options: ServeOptions, task: URL): Promise<void> {
  const stopped = stopSignal();
  const { dir, adapter, config, tokenizerDir } = languageModel(await openWeights(options.model, {}, options.adapter));
  const { vocabSize, maxPositionEmbeddings: maxModelLen, bosTokenId } = config;
  const sha256 = await tokenizerSha256(tokenizerDir);
  const encode = await textEncoder(tokenizerDir, bosTokenId);
  const { maxBatchTokens, fixedShapes, dtype, loadIn4bit, loadIn8bit } = options;

  const served = options.adapter ?? options.model;
  const modelName = hubName(served) ?? served;
  const scorer = restartingHost(
    () => startHost(task, { dtype, loadIn4bit, loadIn8bit, model: dir, adapter: adapter?.path } satisfies ModelOptions),
    say,
  );
  const app = teacherApp({
    modelName,
    vocabSize,
    maxModelLen,
    maxLogprobs: options.maxLogprobs === -1 ? vocabSize : Math.min(options.maxLogprobs, vocabSize),
    tokenizerSha256: sha256,
    encode,
    score: batchingScore((batch) => scorer.request<TokenScores[]>(batch), { maxBatchTokens, maxModelLen, fixedShapes }),
    unavailable: scorer.unavailable,
  });
  const server = createAdaptorServer({ fetch: app.fetch }) as Server;

  try {
    const address = await listen(server, options);
    say(`loading ${modelName}; ${address}/health says when it is ready`);
    await Promise.race([scorer.ready, stopped]);
    if (scorer.unavailable() === null) say(`ready: ${address}/v1/completions scores with ${modelName} (Ctrl-C stops)`);
    await stopped;
  } finally {
    server.close();
    server.closeAllConnections();
    await Promise.race([scorer.close(), sleep(CHILD_GRACE_MS)]);
  }
  process.exit(0);
}

/** Ids of a text as vLLM makes them: with one `<bos>`, also where the text spells it out. */
async function textEncoder(model: string, bosTokenId: number | null): Promise<ServedModel["encode"]> {
  const tokenizer = await loadTokenizer(model);
  if (tokenizer === null) return null;
  return async (text) => {
    const ids = await tokenizer.encode(text);
    return bosTokenId === null || ids[0] === bosTokenId ? ids : [bosTokenId, ...ids];
  };
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

function stopSignal(): Promise<unknown> {
  return Promise.race(STOP_SIGNALS.map((signal) => once(process, signal)));
}

/** Resolves with the address that clients use. */
async function listen(server: Server, { host, port }: ServeOptions): Promise<string> {
  server.listen(port, host);
  await once(server, "listening").catch((error: NodeJS.ErrnoException) => {
    const hint =
      error.code === "EADDRINUSE" ? "another program listens there: stop it or take another --port" : error.message;
    throw new UserError(`cannot listen on ${host}:${port}: ${hint}`);
  });
  const { port: actualPort } = server.address() as AddressInfo;
  return `http://${host.includes(":") ? `[${host}]` : host}:${actualPort}`;
}
