/** A model behind vLLM's routes, so that heddle, TRL and whatever speaks to vLLM can use it as a teacher. */
import { randomUUID } from "node:crypto";
import { type Context, Hono } from "hono";
import { BadRequest, type CompletionRequest, parseCompletionRequest, type ServedModel } from "./completion-request.js";
import { writePromptLogprobs } from "./prompt-logprobs.js";
import type { ScoreRequest, TokenScores } from "./teacher.js";

/** The model cannot be asked at the moment: it loads, or its process is gone. A client may try again. */
export class ScorerUnavailable extends Error {
  override readonly name = "ScorerUnavailable";
}

export type Score = (requests: ScoreRequest[], k: number, signal: AbortSignal) => Promise<TokenScores[]>;

export type TeacherAppOptions = ServedModel & {
  /** Compared by heddle's client: see tokenizerSha256 in tokenizer-hash.ts. null: the model has none. */
  tokenizerSha256: string | null;
  /** May reject with ScorerUnavailable; the signal is aborted when the client has gone. */
  score: Score;
  /** Why nothing can be scored now ("the model is loading"), or null. */
  unavailable?: () => string | null;
};

/** The app alone: @hono/node-server serves it, tests call app.request. */
export function teacherApp(options: TeacherAppOptions): Hono {
  const { unavailable = () => null } = options;
  const startedS = nowInSeconds();
  const app = new Hono();

  app.get("/health", (c) => {
    const problem = unavailable();
    return problem === null ? c.body(null, 200) : serverError(c, 503, problem);
  });

  app.get("/v1/models", (c) => c.json({ object: "list", data: [modelCard(options, startedS)] }));

  app.post("/v1/completions", async (c) => {
    const request = await parseCompletionRequest(await readJson(c), options);
    const problem = unavailable();
    if (problem !== null) return serverError(c, 503, problem);
    const scores = await options.score(request.requests, request.k, c.req.raw.signal);
    return streamJson(completionText(request, scores, options.modelName));
  });

  app.notFound((c) =>
    errorBody(c, 404, {
      message: `${c.req.method} ${c.req.path}: no such route. There are GET /health, GET /v1/models, POST /v1/completions`,
      type: "invalid_request_error",
    }),
  );

  app.onError((error, c) => {
    if (error instanceof BadRequest) {
      const { message, param, code } = error;
      return errorBody(c, 400, { message, type: "invalid_request_error", param, code });
    }
    if (error instanceof ScorerUnavailable) return serverError(c, 503, error.message);
    return serverError(c, 500, `scoring failed: ${error.message}`);
  });

  return app;
}

const nowInSeconds = () => Math.floor(Date.now() / 1000);

/** max_model_len is vLLM's, the last two are heddle's. */
const modelCard = ({ modelName, maxModelLen, vocabSize, tokenizerSha256 }: TeacherAppOptions, startedS: number) => ({
  id: modelName,
  object: "model",
  created: startedS,
  owned_by: "heddle",
  max_model_len: maxModelLen,
  vocab_size: vocabSize,
  ...(tokenizerSha256 !== null && { tokenizer_sha256: tokenizerSha256 }),
});

type OpenAiError = { message: string; type: string; param?: string | null; code?: string | null };

const errorBody = (c: Context, status: 400 | 404 | 500 | 503, { message, type, param, code }: OpenAiError) =>
  c.json({ error: { message, type, param: param ?? null, code: code ?? null } }, status);

const serverError = (c: Context, status: 500 | 503, message: string) =>
  errorBody(c, status, { message, type: status === 503 ? "service_unavailable_error" : "server_error" });

async function readJson(c: Context): Promise<unknown> {
  const text = await c.req.text();
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new BadRequest(`the body is not JSON: ${(error as Error).message}`, null);
  }
}

/** The answer in pieces, a choice a prompt. */
function* completionText(
  { requests, returnTokenIds }: CompletionRequest,
  scores: TokenScores[],
  modelName: string,
): Generator<string> {
  const head = { id: `cmpl-${randomUUID()}`, object: "text_completion", created: nowInSeconds(), model: modelName };
  yield `${JSON.stringify(head).slice(0, -1)},"choices":[`;
  for (const [index, request] of requests.entries()) {
    const tokenIds = returnTokenIds ? { prompt_token_ids: request.ids, token_ids: [] } : {};
    const choice = { index, text: "", logprobs: null, finish_reason: "length", stop_reason: null, ...tokenIds };
    yield `${index === 0 ? "" : ","}${JSON.stringify(choice).slice(0, -1)},`;
    yield* writePromptLogprobs(scores[index]!, request);
    yield "}";
  }
  const promptTokens = requests.reduce((sum, { ids }) => sum + ids.length, 0);
  const usage = { prompt_tokens: promptTokens, completion_tokens: 0, total_tokens: promptTokens };
  yield `],"usage":${JSON.stringify(usage)}}`;
}

const CHARACTERS_PER_PIECE = 1 << 16;

/** Sends text as it is produced. Whoever waits for the network lets other requests be answered in between. */
function streamJson(pieces: Generator<string>): Response {
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      let text = "";
      while (text.length < CHARACTERS_PER_PIECE) {
        const next = pieces.next();
        if (next.done) {
          controller.enqueue(encoder.encode(text));
          controller.close();
          return;
        }
        text += next.value;
      }
      controller.enqueue(encoder.encode(text));
    },
  });
  return new Response(body, { headers: { "content-type": "application/json" } });
}
