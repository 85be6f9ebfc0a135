/**
 * A teacher behind vLLM's HTTP interface: `vllm serve`, or `heddle serve`.
 * POST /v1/completions with token ids as prompts, max_tokens 1 and prompt_logprobs k.
 */
import PQueue from "p-queue";
import { Agent, fetch as undiciFetch } from "undici";
import { type CallOptions, call, type Fetch, parseJson, TeacherError } from "./http-call.js";
import { checkStudent, isHeddle, parseBaseUrl, probe, type Student, type WireModel } from "./http-probe.js";
import { readPromptLogprobs, type WireChoice } from "./prompt-logprobs.js";
import type { RemoteTeacher, ScoreRequest, TokenScores } from "./teacher.js";

export type HttpTeacherOptions = {
  /** Requests in flight. */
  concurrency?: number;
  /** Limit of one attempt, answer included. */
  timeoutMs?: number;
  /** How long the server may be down, at the start or in the middle, before scoring fails. */
  retryForMs?: number;
  /** What the student's ids mean. Compared with what the server reports; vLLM reports neither. */
  student?: Student;
  /** Told, in a line for people, that a call is being tried again. */
  onRetry?: (message: string) => void;
  fetch?: Fetch;
};

/** One entry is about 50 bytes of JSON; an answer is parsed as one string. */
const ENTRIES_PER_ANSWER = 2_000_000;
/** A single prompt cannot be split. This many entries still fit into V8's longest string. */
const ENTRIES_PER_PROMPT = 6_000_000;
/** vLLM can be told to limit prompts per request; small requests also lose less when one has to be repeated. */
const PROMPTS_PER_REQUEST = 32;

/**
 * Connects to a teacher: waits until it is healthy (up to `retryForMs`), asks for its model's name and refuses one
 * whose vocabulary or tokenizer is known to differ from the student's.
 */
export async function httpTeacher(url: string, options: HttpTeacherOptions = {}): Promise<RemoteTeacher> {
  const { concurrency = 4, timeoutMs = 600_000, retryForMs = 120_000, student, onRetry = () => {} } = options;
  const baseUrl = parseBaseUrl(url);
  // undici gives up on a silent server after 300 s: how long to wait is timeoutMs alone.
  const agent = new Agent({
    connections: concurrency,
    headersTimeout: 0,
    bodyTimeout: 0,
    connectTimeout: 10_000,
    keepAliveTimeout: 60_000,
  });
  const fetch: Fetch = options.fetch ?? ((to, init) => undiciFetch(to, { ...init, dispatcher: agent }));
  const callOptions: CallOptions = { fetch, timeoutMs, retryForMs, onRetry };
  const queue = new PQueue({ concurrency });
  const closing = new AbortController();

  try {
    const model = await probe(baseUrl, callOptions, closing.signal);
    checkStudent(baseUrl, model, student);
    const vocabSize = model.vocab_size ?? student?.vocabSize ?? null;
    return {
      modelName: model.id,
      vocabSize,
      score: (requests, k) =>
        scoreAll({ baseUrl, model, vocabSize, callOptions, queue, closing: closing.signal }, requests, k),
      async close() {
        closing.abort(new Error(`the connection to the teacher ${baseUrl} was closed`));
        await agent.destroy();
      },
    };
  } catch (error) {
    await agent.destroy();
    throw error;
  }
}

type Connection = {
  baseUrl: string;
  model: WireModel;
  vocabSize: number | null;
  callOptions: CallOptions;
  queue: PQueue;
  closing: AbortSignal;
};

async function scoreAll(to: Connection, requests: readonly ScoreRequest[], k: number): Promise<TokenScores[]> {
  if (!Number.isInteger(k) || k < 0 || k > (to.vocabSize ?? Infinity)) {
    throw new RangeError(`top-k of the teacher: expected a whole number from 0 to ${to.vocabSize ?? "V"}, got ${k}`);
  }
  for (const { ids, from } of requests) {
    if (from < 1 || from > ids.length) {
      throw new RangeError(`scoring from token ${from} of ${ids.length}: expected 1 to ${ids.length}`);
    }
  }
  // The first failure ends the other chunks: their scores would be thrown away.
  const failure = new AbortController();
  const signal = AbortSignal.any([failure.signal, to.closing]);
  const score = async (chunk: ScoreRequest[]) => {
    signal.throwIfAborted();
    try {
      return await scoreChunk(to, chunk, k, signal);
    } catch (error) {
      failure.abort(error);
      throw error;
    }
  };
  const chunks = chunkRequests(to, requests, k);
  const scores = await Promise.all(chunks.map((chunk) => to.queue.add(() => score(chunk))));
  return scores.flat();
}

/** Consecutive requests, grouped so that an answer stays below ENTRIES_PER_ANSWER. */
function chunkRequests({ baseUrl, model }: Connection, requests: readonly ScoreRequest[], k: number): ScoreRequest[][] {
  const chunks: ScoreRequest[][] = [];
  let entriesInChunk = Infinity;
  for (const request of requests) {
    const positions = request.ids.length - (isHeddle(model) ? request.from : 0);
    const entries = positions * (k + 1);
    if (entries > ENTRIES_PER_PROMPT) {
      throw new TeacherError(
        `${baseUrl}: ${positions} tokens with ${k} log-probabilities each do not fit into one answer ` +
          `(at most ${ENTRIES_PER_PROMPT} numbers). Use a smaller top-k, or a teacher in this process`,
      );
    }
    if (entriesInChunk + entries > ENTRIES_PER_ANSWER || chunks.at(-1)!.length === PROMPTS_PER_REQUEST) {
      chunks.push([]);
      entriesInChunk = 0;
    }
    chunks.at(-1)!.push(request);
    entriesInChunk += entries;
  }
  return chunks;
}

async function scoreChunk(
  { baseUrl, model, vocabSize, callOptions }: Connection,
  chunk: ScoreRequest[],
  k: number,
  signal: AbortSignal,
): Promise<TokenScores[]> {
  const body = {
    model: model.id,
    prompt: chunk.map((request) => request.ids),
    max_tokens: 1,
    temperature: 0,
    prompt_logprobs: k,
    ...(isHeddle(model) && { prompt_logprobs_start: chunk.map((request) => request.from) }),
  };
  const text = await call("POST", `${baseUrl}/v1/completions`, body, callOptions, signal).catch((error: unknown) => {
    throw error instanceof TeacherError ? withLogprobsHint(error, k) : error;
  });
  const { choices } = parseJson(text, `${baseUrl}/v1/completions`) as { choices?: WireChoice[] };
  if (choices?.length !== chunk.length) {
    throw new TeacherError(`${baseUrl}/v1/completions: ${choices?.length ?? "no"} choices for ${chunk.length} prompts`);
  }
  const scores: TokenScores[] = [];
  for (const choice of choices) {
    const request = chunk[choice.index];
    if (!request || scores[choice.index]) {
      throw new TeacherError(
        `${baseUrl}/v1/completions: choice with index ${choice.index}, which is none or twice there`,
      );
    }
    try {
      scores[choice.index] = readPromptLogprobs(choice, request, k, vocabSize);
    } catch (error) {
      throw new TeacherError(`${baseUrl}/v1/completions: choice ${choice.index}: ${(error as Error).message}`);
    }
  }
  return scores;
}

function withLogprobsHint(error: TeacherError, k: number): TeacherError {
  if (!/logprobs/i.test(error.message)) return error;
  const hint = `asked for the ${k} likeliest tokens; vLLM gives up to 20 unless it is started with --max-logprobs`;
  return new TeacherError(`${error.message} (${hint})`, error.status);
}
