/** One HTTP call that outlives a server which is busy, killed or started again. */
import pRetry from "p-retry";

/** The part of fetch that a teacher needs; a hono app or a fake fits too. */
export type Fetch = (
  url: string,
  init: { method: "GET" | "POST"; headers: Record<string, string>; body?: string; signal: AbortSignal },
) => Promise<{ status: number; text(): Promise<string> }>;

export type CallOptions = {
  fetch: Fetch;
  /** Limit of one attempt, answer included. */
  timeoutMs: number;
  /** How long attempts may fail in a row before the call does. */
  retryForMs: number;
  /** Told once per call that has to be tried again. */
  onRetry: (message: string) => void;
};

/** The teacher refuses, or is not the teacher that was meant: trying again cannot help. */
export class TeacherError extends Error {
  override readonly name = "TeacherError";

  constructor(
    message: string,
    /** HTTP status, where the server answered. */
    readonly status?: number,
  ) {
    super(message);
  }
}

/** The teacher did not answer for `retryForMs`. Later it may. */
export class TeacherUnavailableError extends Error {
  override readonly name = "TeacherUnavailableError";
}

const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 5_000;

/**
 * The body of a 200 answer. Tried again with exponential back-off: 408, 429, 5xx, a refused, broken or timed-out
 * connection. Every other status is a TeacherError at once, with the server's own message.
 */
export async function call(
  method: "GET" | "POST",
  url: string,
  body: object | undefined,
  { fetch, timeoutMs, retryForMs, onRetry }: CallOptions,
  signal: AbortSignal,
): Promise<string> {
  const where = `${method} ${url}`;
  let failingSinceMs: number | undefined;

  async function attempt(): Promise<string> {
    let status: number;
    let text: string;
    try {
      const response = await fetch(url, {
        method,
        headers: body ? { "content-type": "application/json" } : {},
        ...(body && { body: JSON.stringify(body) }),
        signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
      });
      status = response.status;
      text = await response.text();
    } catch (error) {
      signal.throwIfAborted();
      throw new TeacherUnavailableError(connectionProblem(error, timeoutMs), { cause: error });
    }
    if (status === 200) return text;
    const problem = `${status}: ${serverMessage(text)}`;
    if (status === 408 || status === 429 || status >= 500) throw new TeacherUnavailableError(problem);
    throw new TeacherError(`${where}: ${problem}`, status);
  }

  return pRetry(attempt, {
    retries: Infinity,
    minTimeout: FIRST_WAIT_MS,
    maxTimeout: LONGEST_WAIT_MS,
    randomize: true,
    signal,
    shouldRetry: ({ error }) => {
      if (!(error instanceof TeacherUnavailableError)) return false;
      const nowMs = performance.now();
      if (failingSinceMs === undefined) {
        failingSinceMs = nowMs;
        onRetry(`${where}: ${error.message}; trying again for ${seconds(retryForMs)}`);
      }
      if (nowMs - failingSinceMs < retryForMs) return true;
      throw new TeacherUnavailableError(`${where}: no answer for ${seconds(retryForMs)}: ${error.message}`, {
        cause: error,
      });
    },
  });
}

const seconds = (ms: number) => `${ms / 1000} s`;

function connectionProblem(error: unknown, timeoutMs: number): string {
  if (error instanceof Error && error.name === "TimeoutError") return `no answer within ${seconds(timeoutMs)}`;
  return deepestMessage(error);
}

/** undici says "fetch failed" or "terminated" and puts what happened into the cause. */
export function deepestMessage(error: unknown): string {
  let deepest = error;
  while (deepest instanceof Error && deepest.cause !== undefined) deepest = deepest.cause;
  if (deepest instanceof AggregateError) deepest = deepest.errors[0] as unknown;
  return deepest instanceof Error ? deepest.message || deepest.name : String(deepest);
}

/** OpenAI's { error: { message } }, vLLM's older { message }, FastAPI's { detail }, or the start of the text. */
function serverMessage(text: string): string {
  try {
    const body = JSON.parse(text) as { error?: { message?: string } | string; message?: string; detail?: unknown };
    const message = (typeof body.error === "string" ? body.error : body.error?.message) ?? body.message ?? body.detail;
    if (typeof message === "string") return message;
    if (message !== undefined) return JSON.stringify(message);
  } catch {
    // not JSON: shown as it is
  }
  return text.trim().slice(0, 300) || "(empty answer)";
}

/** The JSON of an answer, or a TeacherError that says where it came from. */
export function parseJson(text: string, where: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new TeacherError(`${where}: the answer is not JSON: ${(error as Error).message}`);
  }
}
