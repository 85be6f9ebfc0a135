/** Requests to the hub: with the token, through the proxy that the environment names, tried again, errors in plain words. */
import pRetry from "p-retry";
import { deepestMessage } from "../teacher/http-call.js";
import { HubUnavailableError } from "./errors.js";
import type { ModelName } from "./name.js";
import { isTemporaryStatus, problemOf } from "./problems.js";
import type { HubSettings } from "./settings.js";

export type Fetch = typeof globalThis.fetch;

export interface RequestOptions {
  readonly signal?: AbortSignal;
  /** How long to wait after the first failure; twice as long after each one more. @default 500 */
  readonly firstWaitMs?: number;
}

const API_RETRIES = 3;
/** A connection that brings nothing for so long is broken; the next one goes on. */
const STALLED_MS = 60_000;
const LONGEST_WAIT_MS = 10_000;
const LONGEST_RETRY_AFTER_MS = 60_000;

/**
 * A fetch for requests about one model. An answer of the hub, or of the store that it redirects to, is a success; others are
 * thrown as a HubError, or as a HubUnavailableError once they were tried again `retries` times. A store that is asked by
 * its own address may refuse, which can mean that it has not what it is asked for. The token goes to the endpoint alone.
 */
export async function hubFetch(
  settings: HubSettings,
  model: ModelName,
  options: RequestOptions & { readonly retries?: number },
): Promise<Fetch> {
  const { fetch: send, EnvHttpProxyAgent } = await import("undici");
  const dispatcher = new EnvHttpProxyAgent({ bodyTimeout: STALLED_MS });
  const { retries = API_RETRIES } = options;
  const signal = options.signal ?? new AbortController().signal;

  const attempt = async (url: string, init: RequestInit): Promise<Response> => {
    const headers = new Headers(init.headers);
    const isHub = new URL(url).origin === new URL(settings.endpoint).origin;
    if (settings.token !== null && isHub) {
      headers.set("authorization", `Bearer ${settings.token}`);
    }
    let response: Response;
    try {
      const of = { ...init, headers: Object.fromEntries(headers), signal, dispatcher };
      // undici's types of its own classes and those of Node's copy of it differ in name alone.
      response = (await send(url, of as unknown as Parameters<typeof send>[1])) as unknown as Response;
    } catch (error) {
      signal.throwIfAborted();
      throw new HubUnavailableError(unreachable(new URL(url).host, error), { cause: error });
    }
    if (response.ok || (!isHub && !isTemporaryStatus(response.status))) return response;
    const problem = await problemOf(response, model, settings);
    if (problem instanceof HubUnavailableError) await waitAsAsked(response, signal);
    throw problem;
  };

  return (input, init = {}) =>
    retrying(() => attempt(input instanceof Request ? input.url : String(input), init), {
      ...options,
      // What has been read from a stream cannot be sent again.
      retries: init.body instanceof ReadableStream ? 0 : retries,
    });
}

/** Runs `attempt` until it does not fail with a HubUnavailableError. Failures that `isFree` count for nothing. */
export function retrying<Result>(
  attempt: () => Promise<Result>,
  {
    retries,
    signal,
    firstWaitMs = 500,
    isFree = () => false,
  }: RequestOptions & { readonly retries: number; readonly isFree?: () => boolean },
): Promise<Result> {
  return pRetry(attempt, {
    retries,
    minTimeout: firstWaitMs,
    maxTimeout: LONGEST_WAIT_MS,
    randomize: true,
    ...(signal && { signal }),
    shouldRetry: ({ error }) => error instanceof HubUnavailableError,
    shouldConsumeRetry: () => !isFree(),
  });
}

function unreachable(host: string, error: unknown): string {
  return (
    `cannot reach ${host} (${deepestMessage(error)}): check the network and HF_ENDPOINT; ` +
    "with HF_HUB_OFFLINE=1 only the cache is used"
  );
}

/** A hub that is asked too often says for how many seconds to leave it alone. */
async function waitAsAsked(response: Response, signal: AbortSignal): Promise<void> {
  const seconds = Number(response.headers.get("retry-after") ?? 0);
  if (!(seconds > 0)) return;
  const { setTimeout: sleep } = await import("node:timers/promises");
  await sleep(Math.min(1000 * seconds, LONGEST_RETRY_AFTER_MS), undefined, { signal });
}
