/** What an answer of the hub that is no success means, and what to do. */
import { HubError, HubUnavailableError } from "./errors.js";
import type { ModelName } from "./name.js";
import type { HubSettings } from "./settings.js";

/** Statuses after which the same request may succeed. */
export const isTemporaryStatus = (status: number): boolean => status === 408 || status === 429 || status >= 500;

/** The part of a Response that says what went wrong. */
export interface Refusal {
  readonly status: number;
  readonly url: string;
  readonly headers: { get(name: string): string | null };
  text(): Promise<string>;
}

/** The error for an answer about a model. The hub says which in X-Error-Code, and in words in X-Error-Message. */
export async function problemOf(
  response: Refusal,
  { repo, revision }: ModelName,
  { endpoint, token, tokenFrom }: HubSettings,
): Promise<HubError | HubUnavailableError> {
  const { status, headers } = response;
  const code = headers.get("x-error-code");
  const said = headers.get("x-error-message") ?? (await messageIn(response));
  const page = `${endpoint}/${repo}`;
  const refused = (problem: string) => new HubError(problem, status);
  // A signed address of the store behind the hub may have run out: the next one is new.
  if (isTemporaryStatus(status) || new URL(response.url).origin !== new URL(endpoint).origin) {
    return new HubUnavailableError(`${repo}: ${new URL(response.url).host} answers ${status}${said && `: ${said}`}`);
  }
  if (code === "GatedRepo") {
    return refused(
      token === null
        ? `${repo}: is gated: accept its licence at ${page}, then set HF_TOKEN to a token of that account`
        : `${repo}: is gated, and the token of ${tokenFrom} has no access: accept its licence at ${page} with the ` +
            "account of that token (a fine-grained token must allow gated repositories, too)",
    );
  }
  if (code === "RevisionNotFound") return refused(`${repo}: has no revision ${JSON.stringify(revision ?? "main")}`);
  if (status === 401 && token !== null && code !== "RepoNotFound") {
    return refused(`${endpoint}: refuses the token of ${tokenFrom}${said && `: ${said}`}`);
  }
  if (code === "RepoNotFound" || status === 401 || (status === 404 && code === null)) {
    const access = token === null ? "a private one needs HF_TOKEN" : `or the token of ${tokenFrom} may not see it`;
    return refused(`${repo}: not found at ${endpoint}: check the spelling; ${access}`);
  }
  return refused(`${repo}: ${endpoint} answers ${status}${code === null ? "" : ` ${code}`}${said && `: ${said}`}`);
}

async function messageIn(response: Refusal): Promise<string> {
  const text = await response.text().catch(() => "");
  try {
    const { error } = JSON.parse(text) as { error?: unknown };
    if (typeof error === "string") return error;
  } catch {
    // A page for people.
  }
  return "";
}
