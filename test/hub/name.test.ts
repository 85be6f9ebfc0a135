// The folders of the hub's cache say what they hold; the environment says where they are.
import { mkdirSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { hubName, pinnedName } from "../../hub/name.js";
import { hubSettings } from "../../hub/settings.js";
import { newFolder } from "../pipelines/command.js";

test("hubName: the folder of the hub's cache says whose model it is, other folders do not", () => {
  expect(hubName("/root/.cache/huggingface/hub/models--google--gemma-2-2b/snapshots/1a2b3c/")).toBe(
    "google/gemma-2-2b",
  );
  expect(hubName("models--google--gemma-2-2b/snapshots/1a2b3c")).toBe("google/gemma-2-2b");
  expect(hubName("google/gemma-2-2b")).toBeNull();
  expect(hubName("/x/models--gpt2/snapshots/1a2b3c")).toBeNull();
});

test("pinnedName: with the commit, where it is one", () => {
  const commit = "0123456789abcdef0123456789abcdef01234567";
  expect(pinnedName(`/c/models--google--gemma-2-2b/snapshots/${commit}`)).toBe(`google/gemma-2-2b@${commit}`);
  expect(pinnedName("/c/models--google--gemma-2-2b/snapshots/1a2b3c")).toBeNull();
});

test("hubSettings: as huggingface_hub reads the environment", () => {
  const cache = join(homedir(), ".cache", "huggingface");
  const nothing = { HF_TOKEN_PATH: "/nowhere/token" };
  expect(hubSettings(nothing)).toEqual({
    endpoint: "https://huggingface.co",
    token: null,
    tokenFrom: "/nowhere/token",
    cache: join(cache, "hub"),
    isOffline: false,
  });
  const home = newFolder();
  mkdirSync(join(home, "deep"));
  writeFileSync(join(home, "token"), "hf_file\n");
  expect(hubSettings({ HF_HOME: home, HF_ENDPOINT: "http://mirror:8080/", HF_HUB_OFFLINE: "1" })).toEqual({
    endpoint: "http://mirror:8080",
    token: "hf_file",
    tokenFrom: join(home, "token"),
    cache: join(home, "hub"),
    isOffline: true,
  });
  expect(hubSettings({ HF_HOME: home, HF_TOKEN: " hf_env ", HF_HUB_CACHE: "~/c" })).toMatchObject({
    token: "hf_env",
    tokenFrom: "HF_TOKEN",
    cache: join(homedir(), "c"),
  });
  expect(hubSettings({ XDG_CACHE_HOME: home, TRANSFORMERS_OFFLINE: "true" })).toMatchObject({
    cache: join(home, "huggingface", "hub"),
    isOffline: true,
  });
});

test("hubSettings: what is no address and no token", () => {
  expect(() => hubSettings({ HF_ENDPOINT: "huggingface.co" })).toThrow(
    'HF_ENDPOINT: expected an address such as https://huggingface.co, got "huggingface.co"',
  );
  expect(() => hubSettings({ HF_TOKEN: "hf_a\nhf_b" })).toThrow(
    "HF_TOKEN: expected a token in one line, such as hf_..., got 9 characters that are none",
  );
});
