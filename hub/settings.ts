/** Where the hub is, who asks, and where its files are kept: from the variables that Python's huggingface_hub reads. */
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { HubError } from "./errors.js";

export interface HubSettings {
  /** Without a slash at its end. */
  readonly endpoint: string;
  readonly token: string | null;
  /** What the token was read from, for messages. */
  readonly tokenFrom: string;
  /** Folder of the cache. */
  readonly cache: string;
  /** Whether the cache is all there is. */
  readonly isOffline: boolean;
}

/**
 * HF_ENDPOINT; HF_TOKEN, else the file that `hf auth login` writes; HF_HUB_CACHE, HF_HOME; HF_HUB_OFFLINE.
 *
 * @throws HubError where the endpoint is no address or the token no token
 */
export function hubSettings(env: NodeJS.ProcessEnv = process.env): HubSettings {
  const endpoint = (env.HF_ENDPOINT || "https://huggingface.co").replace(/\/+$/, "");
  if (!/^https?:/.test(endpoint) || !URL.canParse(endpoint)) {
    throw new HubError(
      `HF_ENDPOINT: expected an address such as https://huggingface.co, got ${JSON.stringify(endpoint)}`,
    );
  }
  const home = expand(env.HF_HOME || join(env.XDG_CACHE_HOME || join(homedir(), ".cache"), "huggingface"));
  return {
    endpoint,
    ...readToken(env, home),
    cache: expand(env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(home, "hub")),
    isOffline: isTrue(env.HF_HUB_OFFLINE || env.TRANSFORMERS_OFFLINE),
  };
}

function readToken(env: NodeJS.ProcessEnv, home: string): { token: string | null; tokenFrom: string } {
  const variable = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].find((name) => env[name]?.trim());
  const path = expand(env.HF_TOKEN_PATH || join(home, "token"));
  const tokenFrom = variable ?? path;
  const token = (variable === undefined ? readIfThere(path) : env[variable])?.trim() || null;
  if (token === null || /^[\x21-\x7e]+$/.test(token)) return { token, tokenFrom };
  throw new HubError(
    `${tokenFrom}: expected a token in one line, such as hf_..., got ${token.length} characters that are none`,
  );
}

const expand = (path: string): string => path.replace(/^~(?=$|\/)/, homedir());

const isTrue = (value: string | undefined): boolean => /^(1|true|yes|on)$/i.test(value ?? "");

function readIfThere(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
}
