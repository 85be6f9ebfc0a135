/** A small model on a hub of the test's own, and settings that lead there. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { isConfig } from "../../hub/files.js";
import type { HubSettings } from "../../hub/settings.js";
import { newFolder } from "../pipelines/command.js";
import type { FakeHub } from "./server.js";

/** Bytes that no two places share. */
export function weights(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * 31 + (i >> 8)) & 255;
  return bytes;
}

/** A new cache, and no token. */
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

export const fixture = (name: string): string => fileURLToPath(new URL(`../fixtures/models/${name}`, import.meta.url));

/** Config and weights of a model folder. */
export function filesOf(dir: string): Record<string, Buffer> {
  const names = readdirSync(dir).filter((name) => isConfig(name) || /^(adapter_)?model.*\.safetensors/.test(name));
  return Object.fromEntries(names.map((name) => [name, readFileSync(join(dir, name))]));
}

/** Lets this process and those that it starts use the hub, with its token and a new cache; returns HF_HOME. */
export function useHub(hub: FakeHub): string {
  const home = newFolder();
  Object.assign(process.env, { HF_ENDPOINT: hub.url, HF_TOKEN: "hf_good", HF_HUB_OFFLINE: "0", HF_HOME: home });
  return home;
}
