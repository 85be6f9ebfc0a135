/** A small model on a hub of the test's own, and settings that lead there. */
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { HubSettings } from "../../hub/settings.js";
import type { FakeHub } from "./server.js";

export const newFolder = (): string => mkdtempSync(join(tmpdir(), "heddle-hub-"));

/** Bytes that no two places share. */
export function weights(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * 31 + (i >> 8)) & 255;
  return bytes;
}

/** One second of settings: a new cache, and the hub's token unless another is given. */
export const settingsOf = (hub: FakeHub, others: Partial<HubSettings> = {}): HubSettings => ({
  endpoint: hub.url,
  token: null,
  tokenFrom: "HF_TOKEN",
  cache: newFolder(),
  isOffline: false,
  ...others,
});

export const SMALL_FILES = {
  "config.json": '{"model_type": "gemma2"}\n',
  "tokenizer.json": "{}",
  "tokenizer_config.json": "{}",
  "generation_config.json": "{}",
  "chat_template.jinja": "{{ messages }}",
};
