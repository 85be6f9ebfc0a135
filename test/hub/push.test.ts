// Pushing to a hub on loopback, and what comes back from there.
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { modelName } from "../../hub/name.js";
import { pullModel } from "../../hub/pull.js";
import { type PushOptions, pushModel } from "../../hub/push.js";
import { newFolder } from "../pipelines/command.js";
import { SMALL_FILES, settingsOf, weights } from "./hub-folder.js";
import { type FakeHub, sha256, startHub } from "./server.js";

let hub: FakeHub;
beforeAll(async () => {
  hub = await startHub();
});
beforeEach(() => {
  hub.requests.length = 0;
  hub.fault = () => undefined;
  hub.uploads = "whole";
});
afterAll(() => hub.close());

const LARGE = weights(300_000);

function modelFolder(files: Readonly<Record<string, string | Buffer>>): string {
  const dir = newFolder();
  for (const [name, content] of Object.entries(files)) writeFileSync(join(dir, name), content);
  return dir;
}

const push = (dir: string, to: string, options: Partial<PushOptions> = {}) =>
  pushModel(dir, to, {
    settings: settingsOf(hub, { token: "hf_good" }),
    private: false,
    revision: "main",
    message: "Upload",
    firstWaitMs: 1,
    ...options,
  });

const uploads = () => hub.requests.filter((line) => line.startsWith("PUT"));

describe("a push", () => {
  test("makes the repository, and what is pulled from there has the same bytes", async () => {
    const files = { ...SMALL_FILES, "model.safetensors": LARGE, "README.md": "# card\n", "LICENSE.txt": "terms" };
    const dir = modelFolder({ ...files, ".secret": "no", "state.bin": "no", "report.html": "no" });
    mkdirSync(join(dir, "checkpoints"));
    const seen: [number, number][] = [];
    expect(await push(dir, "me/new", { onProgress: (done, total) => seen.push([done, total]) })).toBe(
      `${hub.url}/me/new`,
    );
    const repo = hub.repos["me/new"]!;
    expect(new Set(Object.keys(repo.commits[repo.branches.main!]!))).toEqual(new Set(Object.keys(files)));
    expect(repo.isPrivate).toBe(false);

    const total = Object.values(files).reduce((sum, content) => sum + content.length, 0);
    expect([seen[0], seen.at(-1)]).toEqual([
      [0, total],
      [total, total],
    ]);
    // The bytes of the large file are counted as they leave.
    expect(seen.some(([done]) => done > 0 && done < LARGE.length)).toBe(true);

    const pulled = await pullModel(modelName("me/new"), { settings: settingsOf(hub) });
    for (const name of readdirSync(pulled)) {
      expect(readFileSync(join(pulled, name)).equals(readFileSync(join(dir, name)))).toBe(true);
    }
    expect(readdirSync(pulled)).toContain("model.safetensors");
  });

  test("to a branch that is not there makes it, and leaves main as it was", async () => {
    hub.addModel("me/branch", { "config.json": "{}", "model.safetensors": "old" });
    const { main } = hub.repos["me/branch"]!.branches;
    const dir = modelFolder({ ...SMALL_FILES, "model.safetensors": LARGE });
    for (let i = 0; i < 2; i++) {
      expect(await push(dir, "me/branch", { revision: "v2" })).toBe(`${hub.url}/me/branch/tree/v2`);
    }
    const { branches, commits } = hub.repos["me/branch"]!;
    expect(branches.main).toBe(main);
    expect(commits[branches.v2!]!["model.safetensors"]!.equals(LARGE)).toBe(true);
  });

  test("of an adapter, private", async () => {
    const dir = modelFolder({ "adapter_config.json": "{}", "adapter_model.safetensors": LARGE });
    await push(dir, "me/adapter", { private: true });
    expect(hub.repos["me/adapter"]!.isPrivate).toBe(true);
    await push(dir, "me/adapter", { private: true });
  });

  test("sends a file that the store has no second time, and one that failed again", async () => {
    const dir = modelFolder({ ...SMALL_FILES, "model.safetensors": weights(200_000) });
    let failures = 0;
    hub.fault = (request) => (request.startsWith("PUT") && failures++ < 2 ? { status: 500 } : undefined);
    await push(dir, "me/twice");
    expect(uploads()).toHaveLength(3);
    hub.requests.length = 0;
    writeFileSync(join(dir, "config.json"), "{}");
    await push(dir, "me/twice");
    expect(uploads()).toEqual([]);
    const { branches, commits } = hub.repos["me/twice"]!;
    expect(`${commits[branches.main!]!["config.json"]}`).toBe("{}");
  });

  test("of a very large file goes in parts", async () => {
    hub.uploads = 100_000;
    const bytes = weights(250_000);
    const seen: number[] = [];
    await push(modelFolder({ "config.json": "{}", "model.safetensors": bytes }), "me/parts", {
      onProgress: (done) => seen.push(done),
    });
    expect(new Set(uploads())).toEqual(new Set([1, 2, 3].map((part) => `PUT /${sha256(bytes)}/${part}`)));
    const { branches, commits } = hub.repos["me/parts"]!;
    expect(commits[branches.main!]!["model.safetensors"]!.equals(bytes)).toBe(true);
    expect(Math.max(...seen)).toBe(250_002);
  });

  test("by chunks, where the hub has it so: the store's key goes to the store, the hub's token does not", async () => {
    hub.uploads = "xet";
    await push(modelFolder({ "config.json": "{}", "model.safetensors": weights(250_001) }), "me/xet");
    const sent = hub.requests
      .filter((line) => line.startsWith("POST /v1/"))
      .map((line) => line.split("/").slice(0, 3).join("/"));
    expect(sent).toEqual(["POST /v1/xorbs", "POST /v1/shards"]);
    const { branches, commits } = hub.repos["me/xet"]!;
    expect(Object.keys(commits[branches.main!]!)).toEqual(["config.json", "model.safetensors"]);
  });

  test("stops at a signal, and nothing was committed", async () => {
    const dir = modelFolder({ ...SMALL_FILES, "model.safetensors": weights(150_000) });
    const stop = new AbortController();
    const stopped = push(dir, "me/stopped", {
      signal: stop.signal,
      onProgress: (done) => done > 0 && stop.abort(new Error("stopped")),
    });
    await expect(stopped).rejects.toThrow("stopped");
    const { branches, commits } = hub.repos["me/stopped"]!;
    expect(commits[branches.main!]).toEqual({});
  });
});

describe("is refused", () => {
  const model = () => modelFolder({ "config.json": "{}", "model.safetensors": LARGE });
  test("a folder that is no model", async () => {
    const none = modelFolder({ "notes.txt": "" });
    await expect(push(none, "me/x")).rejects.toThrow(
      `${none}: has no config.json and no adapter_config.json, expected a model or adapter folder`,
    );
    const empty = modelFolder({ "config.json": "{}" });
    await expect(push(empty, "me/x")).rejects.toThrow(
      `${empty}: has no weights, expected model.safetensors, model.safetensors.index.json or adapter_model.safetensors`,
    );
    const lost = modelFolder({
      "config.json": "{}",
      "model.safetensors.index.json": '{"weight_map": {"a": "b.safetensors"}}',
    });
    await expect(push(lost, "me/x")).rejects.toThrow(
      `${lost}: model.safetensors.index.json names b.safetensors, which is not there`,
    );
    expect(hub.requests).toEqual([]);
  });

  test("who has no token, or one that may not write", async () => {
    await expect(push(model(), "me/x", { settings: settingsOf(hub) })).rejects.toThrow(
      "me/x: to upload, set HF_TOKEN to a token that may write",
    );
    await expect(push(model(), "me/x", { settings: settingsOf(hub, { token: "hf_other" }) })).rejects.toThrow(
      `me/x: ${hub.url} answers 403: You have no rights here`,
    );
    await expect(
      push(model(), "me/x", { settings: settingsOf(hub, { token: "hf_good", isOffline: true }) }),
    ).rejects.toThrow("me/x: HF_HUB_OFFLINE forbids to ask the hub");
  });

  test("--private for a repository that everybody sees", async () => {
    hub.addModel("me/public", { "config.json": "{}", "model.safetensors": LARGE });
    await expect(push(model(), "me/public", { private: true })).rejects.toThrow(
      `me/public: is public, and --private makes new repositories private: change it at ${hub.url}/me/public/settings`,
    );
    expect(uploads()).toEqual([]);
  });

  test("a name that is none", async () => {
    await expect(push(model(), "gemma")).rejects.toThrow(
      'expected org/name or org/name@revision, such as google/gemma-2-2b-it, got "gemma"',
    );
    await expect(push(model(), "me/x@v1")).rejects.toThrow("me/x@v1: expected org/name, and the branch in --revision");
    await expect(push(model(), "me/x", { revision: "../x" })).rejects.toThrow(
      'expected the name of a branch, got "../x"',
    );
  });

  test("a store that refuses the file", async () => {
    hub.fault = (request) => (request.startsWith("PUT") ? { status: 403 } : undefined);
    const dir = modelFolder({ "config.json": "{}", "model.safetensors": weights(100_002) });
    await expect(push(dir, "me/refused")).rejects.toMatchObject({
      name: "HubError",
      message: expect.stringMatching(
        /^me\/refused: Api error with status 403\. Error while uploading model\.safetensors/,
      ),
    });
  });

  test("a store that loses the file", async () => {
    hub.fault = (request) => (request.startsWith("PUT") ? { status: 500 } : undefined);
    const bytes = weights(100_001);
    const dir = modelFolder({ "config.json": "{}", "model.safetensors": bytes });
    await expect(push(dir, "me/lost")).rejects.toMatchObject({ name: "HubUnavailableError" });
    expect(uploads()).toEqual(Array.from({ length: 4 }, () => `PUT /${sha256(bytes)}`));
  });
});
