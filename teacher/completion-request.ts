/** What POST /v1/completions accepts: prompts to score. Everything else is refused in OpenAI's words. */
import type { ScoreRequest } from "./teacher.js";

/** A request that can never succeed as it is: HTTP 400 with OpenAI's error body. */
export class BadRequest extends Error {
  override readonly name = "BadRequest";

  constructor(
    message: string,
    /** The field at fault. */
    readonly param: string | null,
    readonly code: string | null = null,
  ) {
    super(message);
  }
}

export type ServedModel = {
  modelName: string;
  vocabSize: number;
  /** Longest prompt, in tokens. */
  maxModelLen: number;
  /** Largest prompt_logprobs. */
  maxLogprobs: number;
  /** The tokenizer, `<bos>` included; null: prompts must be token ids. */
  encode: ((text: string) => Promise<number[]>) | null;
};

export type CompletionRequest = {
  requests: ScoreRequest[];
  k: number;
  /** The client wants the ids that were scored. */
  returnTokenIds: boolean;
};

/** One answer holds at most this many log-probabilities, which is some 100 MB of JSON. */
const ENTRIES_PER_ANSWER = 8_000_000;

/**
 * Checks a parsed body as vLLM would, and throws BadRequest with what was wrong. Unknown fields are ignored, as there.
 * `prompt_logprobs_start`, one number a prompt or one for all, is heddle's: the first position that is scored.
 */
export async function parseCompletionRequest(body: unknown, model: ServedModel): Promise<CompletionRequest> {
  if (!isObject(body)) throw new BadRequest(`expected a JSON object, got ${show(body)}`, null);
  checkModel(body.model, model);
  checkNothingGenerated(body);
  const k = parseTopK(body, model);
  const prompts = await parsePrompts(body.prompt, model);
  const starts = parseStarts(body.prompt_logprobs_start, prompts);
  const requests = prompts.map((ids, i) => ({ ids, from: starts[i]! }));
  const entries = requests.reduce((sum, { ids, from }) => sum + (ids.length - from) * k, 0);
  if (entries > ENTRIES_PER_ANSWER) {
    throw new BadRequest(
      `prompt_logprobs ${k} over these prompts is ${entries} log-probabilities, at most ${ENTRIES_PER_ANSWER} fit into ` +
        "one answer: send fewer prompts, or ask for fewer",
      "prompt_logprobs",
    );
  }
  return { requests, k, returnTokenIds: body.return_token_ids === true };
}

type Body = Record<string, unknown>;

function checkModel(name: unknown, { modelName }: ServedModel): void {
  if (name === undefined || name === null || name === modelName) return;
  throw new BadRequest(
    `the model ${show(name)} does not exist, this server has "${modelName}"`,
    "model",
    "model_not_found",
  );
}

function checkNothingGenerated(body: Body): void {
  const maxTokens = body.max_tokens ?? 0;
  if (!Number.isInteger(maxTokens) || (maxTokens as number) < 0) {
    throw new BadRequest(`max_tokens: expected 0 or 1, got ${show(maxTokens)}`, "max_tokens");
  }
  if ((maxTokens as number) > 1) {
    throw new BadRequest(`max_tokens: got ${maxTokens}, but generation is not served yet: use 0 or 1`, "max_tokens");
  }
  if (body.stream === true) throw new BadRequest("stream: scores are not streamed, leave it out", "stream");
  if (body.n !== undefined && body.n !== null && body.n !== 1) {
    throw new BadRequest(`n: expected 1, got ${show(body.n)}`, "n");
  }
}

function parseTopK(body: Body, { vocabSize, maxLogprobs }: ServedModel): number {
  const k = body.prompt_logprobs;
  if (k === undefined || k === null) {
    throw new BadRequest(
      "prompt_logprobs: missing. This server scores prompts: set it to the number of likeliest tokens wanted a position",
      "prompt_logprobs",
    );
  }
  const wanted = k === -1 ? vocabSize : k;
  if (!Number.isInteger(wanted) || (wanted as number) < 0 || (wanted as number) > maxLogprobs) {
    const all = maxLogprobs === vocabSize ? " (the vocabulary), or -1 for all" : " (the limit of this server)";
    throw new BadRequest(`prompt_logprobs: expected 0 to ${maxLogprobs}${all}, got ${show(k)}`, "prompt_logprobs");
  }
  return wanted as number;
}

async function parsePrompts(prompt: unknown, model: ServedModel): Promise<number[][]> {
  if (prompt === undefined || prompt === null) throw new BadRequest("prompt: missing", "prompt");
  const isOne = typeof prompt === "string" || (Array.isArray(prompt) && typeof prompt[0] === "number");
  const prompts: unknown = isOne ? [prompt] : prompt;
  if (!Array.isArray(prompts)) {
    throw new BadRequest(`prompt: expected token ids, a text, or a list of either, got ${show(prompt)}`, "prompt");
  }
  if (prompts.length === 0) throw new BadRequest("prompt: is empty", "prompt");
  return Promise.all(prompts.map((one: unknown, i) => parsePrompt(one, isOne ? "prompt" : `prompt[${i}]`, model)));
}

async function parsePrompt(
  prompt: unknown,
  where: string,
  { encode, vocabSize, maxModelLen }: ServedModel,
): Promise<number[]> {
  let ids: unknown = prompt;
  if (typeof prompt === "string") {
    if (!encode) throw new BadRequest(`${where}: is a text, this server takes token ids only`, "prompt");
    ids = await encode(prompt);
  }
  if (!Array.isArray(ids)) {
    throw new BadRequest(`${where}: expected token ids or a text, got ${show(prompt)}`, "prompt");
  }
  if (ids.length === 0) throw new BadRequest(`${where}: is empty`, "prompt");
  const bad = ids.findIndex(
    (id: unknown) => !Number.isInteger(id) || (id as number) < 0 || (id as number) >= vocabSize,
  );
  if (bad >= 0) {
    throw new BadRequest(
      `${where}[${bad}]: expected a token id from 0 to ${vocabSize - 1}, got ${show(ids[bad])}`,
      "prompt",
    );
  }
  if (ids.length > maxModelLen) {
    const message = `${where}: has ${ids.length} tokens, this model takes at most ${maxModelLen}`;
    throw new BadRequest(message, "prompt", "context_length_exceeded");
  }
  return ids as number[];
}

function parseStarts(start: unknown, prompts: number[][]): number[] {
  const starts: unknown[] = Array.isArray(start) ? start : prompts.map(() => start ?? 1);
  if (starts.length !== prompts.length) {
    const message = `prompt_logprobs_start: has ${starts.length} numbers for ${prompts.length} prompts`;
    throw new BadRequest(message, "prompt_logprobs_start");
  }
  return starts.map((from, i) => {
    const length = prompts[i]!.length;
    if (Number.isInteger(from) && (from as number) >= 1 && (from as number) <= length) return from as number;
    const message = `prompt_logprobs_start: expected 1 to ${length} for prompt ${i}, got ${show(from)}`;
    throw new BadRequest(message, "prompt_logprobs_start");
  });
}

const isObject = (value: unknown): value is Body =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** A value as it was sent, cut to a length that fits into a message. */
function show(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
