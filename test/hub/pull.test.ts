// Pulling from a hub on loopback: what is fetched, what is left out, how a broken download goes on.
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { linkBlob, snapshotFolder } from "../../hub/cache.js";
import { parseModelName } from "../../hub/name.js";
import { type PullOptions, pullModel } from "../../hub/pull.js";
import { newFolder } from "../pipelines/command.js";
import { SMALL_FILES, settingsOf, weights } from "./hub-folder.js";
import { type FakeHub, gitSha1, sha256, startHub } from "./server.js";

let hub: FakeHub;
beforeAll(async () => {
  hub = await startHub();
});
beforeEach(() => {
  hub.requests.length = 0;
  hub.fault = () => undefined;
});
afterAll(() => hub.close());

const LARGE = weights(300_000);
const pull = (text: string, options: PullOptions = {}) =>
  pullModel(parseModelName(text)!, { settings: settingsOf(hub), firstWaitMs: 1, ...options });
const repoOf = (cache: string, repo: string) => join(cache, `models--${repo.replace("/", "--")}`);
const downloads = () => hub.requests.filter((line) => !line.includes("/api/"));

describe("a pull", () => {
  test("fetches what a model needs into the layout of huggingface_hub, and no more", async () => {
    const commit = hub.addModel("org/whole", {
      ...SMALL_FILES,
      "model.safetensors": LARGE,
      "README.md": "card",
      "pytorch_model.bin": "old",
      "model-Q4.gguf": "other",
      "original/model.safetensors": "other",
      "consolidated.safetensors": "the same again",
    });
    const settings = settingsOf(hub);
    const folder = await pull("org/whole", { settings });
    const repo = repoOf(settings.cache, "org/whole");
    expect(folder).toBe(join(repo, "snapshots", commit));
    expect(readdirSync(folder).sort()).toEqual([...Object.keys(SMALL_FILES), "model.safetensors"].sort());
    expect(readFileSync(join(folder, "model.safetensors")).equals(LARGE)).toBe(true);
    expect(readlinkSync(join(folder, "model.safetensors"))).toBe(`../../blobs/${sha256(LARGE)}`);
    expect(readlinkSync(join(folder, "config.json"))).toBe(
      `../../blobs/${gitSha1(Buffer.from(SMALL_FILES["config.json"]))}`,
    );
    expect(readFileSync(join(repo, "refs", "main"), "utf8")).toBe(commit);
    // The tokenizer, its config and the generation config have the same content: one blob, fetched once.
    expect(downloads().filter((line) => line.includes("/resolve/")).length).toBe(4);
    expect(readdirSync(join(repo, "blobs")).sort()).toEqual(
      [...new Set(Object.values(SMALL_FILES).map((text) => gitSha1(Buffer.from(text)))), sha256(LARGE)].sort(),
    );
  });

  test("fetches nothing that the cache has, and nothing at all for a commit", async () => {
    const commit = hub.addModel("org/again", { ...SMALL_FILES, "model.safetensors": LARGE });
    const settings = settingsOf(hub);
    const folder = await pull("org/again", { settings });
    hub.requests.length = 0;
    expect(await pull("org/again", { settings })).toBe(folder);
    expect(downloads()).toEqual([]);
    hub.requests.length = 0;
    expect(await pull(`org/again@${commit}`, { settings })).toBe(folder);
    expect(hub.requests).toEqual([]);
  });

  test("of a branch, and of one that has moved, fetches what is new", async () => {
    const before = hub.addModel("org/moves", { ...SMALL_FILES, "model.safetensors": LARGE });
    hub.repos["org/moves"]!.branches.v1 = before;
    const settings = settingsOf(hub);
    const first = await pull("org/moves@v1", { settings });
    hub.addModel("org/moves", { ...SMALL_FILES, "config.json": "{}", "model.safetensors": LARGE });
    hub.requests.length = 0;
    const second = await pull("org/moves", { settings });
    expect(downloads().filter((line) => line.includes("safetensors"))).toEqual([]);
    expect([first, second].map((folder) => readFileSync(join(folder, "config.json"), "utf8"))).toEqual([
      SMALL_FILES["config.json"],
      "{}",
    ]);
    expect(readFileSync(join(repoOf(settings.cache, "org/moves"), "refs", "v1"), "utf8")).toBe(before);
  });

  test("takes the shards that the index names", async () => {
    const index = JSON.stringify({
      weight_map: { a: "model-1.safetensors", b: "model-2.safetensors", c: "model-1.safetensors" },
    });
    const shards = {
      "model-1.safetensors": LARGE,
      "model-2.safetensors": weights(1000),
      "model-3.safetensors": "none",
    };
    hub.addModel("org/shards", { ...SMALL_FILES, "model.safetensors.index.json": index, ...shards });
    const seen: [number, number][] = [];
    const folder = await pull("org/shards", { onProgress: (done, total) => seen.push([done, total]) });
    expect(readdirSync(folder).filter((name) => name.endsWith(".safetensors"))).toEqual([
      "model-1.safetensors",
      "model-2.safetensors",
    ]);
    expect(seen.at(-1)).toEqual([301_000, 301_000]);
  });

  test("of an adapter", async () => {
    hub.addModel("org/adapter", { "adapter_config.json": "{}", "adapter_model.safetensors": LARGE, "README.md": "" });
    expect(readdirSync(await pull("org/adapter")).sort()).toEqual(["adapter_config.json", "adapter_model.safetensors"]);
  });
});

describe("a download", () => {
  test("that is cut off goes on where it stopped, however often", async () => {
    hub.addModel("org/cut", { ...SMALL_FILES, "model.safetensors": LARGE });
    let at = 0;
    hub.fault = (request) => {
      if (!request.startsWith(`GET /${sha256(LARGE)}`) || at >= 240_000) return undefined;
      at += 30_000;
      return { cutAt: at };
    };
    const folder = await pull("org/cut");
    expect(readFileSync(join(folder, "model.safetensors")).equals(LARGE)).toBe(true);
    const [first, ...others] = hub.requests.filter((line) => line.startsWith(`GET /${sha256(LARGE)}`));
    expect(first).toBe(`GET /${sha256(LARGE)}`);
    // Eight cuts are more than the attempts that may fail in a row: those that bring bytes do not count.
    expect(others).toHaveLength(8);
    expect(others.every((line) => / bytes=\d+-$/.test(line))).toBe(true);
  });

  test("goes on after a partial file of another process, if it is the beginning of the file", async () => {
    hub.addModel("org/partial", { ...SMALL_FILES, "model.safetensors": LARGE });
    const begin = async (partial: Buffer) => {
      const settings = settingsOf(hub);
      const blobs = join(repoOf(settings.cache, "org/partial"), "blobs");
      mkdirSync(blobs, { recursive: true });
      writeFileSync(join(blobs, `${sha256(LARGE)}.incomplete`), partial);
      hub.requests.length = 0;
      const pulled = await pull("org/partial", { settings }).catch((error: Error) => error.message);
      const ranges = hub.requests.filter((line) => line.startsWith(`GET /${sha256(LARGE)}`));
      return { pulled, ranges, left: readdirSync(blobs).filter((name) => name.startsWith(sha256(LARGE))) };
    };
    const whole = [sha256(LARGE)];
    expect(await begin(LARGE.subarray(0, 100_000))).toMatchObject({
      ranges: [`GET /${sha256(LARGE)} bytes=100000-`],
      left: whole,
    });
    expect(await begin(LARGE)).toMatchObject({ ranges: [], left: whole });
    expect(await begin(Buffer.concat([LARGE, LARGE]))).toMatchObject({
      ranges: [`GET /${sha256(LARGE)}`],
      left: whole,
    });
    const wrong = Buffer.concat([Buffer.from([7]), LARGE.subarray(1)]);
    expect(await begin(wrong.subarray(0, 100_000))).toMatchObject({
      pulled: `org/partial: model.safetensors: sha256 is ${sha256(wrong)}, expected ${sha256(LARGE)}; nothing of it was kept: run the same command again`,
      left: [],
    });
  });

  test("with the wrong hash is an error, and nothing of it is kept", async () => {
    hub.addModel("org/wrong", { ...SMALL_FILES, "model.safetensors": LARGE });
    const wrong = Buffer.concat([LARGE.subarray(1), LARGE.subarray(0, 1)]);
    hub.fault = (request) => (request === `GET /${sha256(LARGE)}` ? { bytes: wrong } : undefined);
    const settings = settingsOf(hub);
    await expect(pull("org/wrong", { settings })).rejects.toThrow(
      `org/wrong: model.safetensors: sha256 is ${sha256(wrong)}, expected ${sha256(LARGE)}; nothing of it was kept: run the same command again`,
    );
    expect(readdirSync(join(repoOf(settings.cache, "org/wrong"), "blobs")).join()).not.toContain(sha256(LARGE));
    expect(existsSync(join(repoOf(settings.cache, "org/wrong"), "refs"))).toBe(false);
  });

  test("of a small file is checked with git's sha1", async () => {
    hub.addModel("org/small", { ...SMALL_FILES, "model.safetensors": LARGE });
    const [right, wrong] = [Buffer.from(SMALL_FILES["config.json"]), Buffer.from('{"model_type": "gemma3"}\n')];
    hub.fault = (request) => (request.endsWith("/config.json") ? { bytes: wrong } : undefined);
    await expect(pull("org/small")).rejects.toThrow(
      `org/small: config.json: git's sha1 is ${gitSha1(wrong)}, expected ${gitSha1(right)}; nothing of it was kept: run the same command again`,
    );
  });

  test("of more bytes than were announced", async () => {
    hub.addModel("org/long", { ...SMALL_FILES, "model.safetensors": LARGE });
    hub.fault = (request) =>
      request === `GET /${sha256(LARGE)}` ? { bytes: Buffer.concat([LARGE, LARGE]) } : undefined;
    await expect(pull("org/long")).rejects.toThrow(
      /^org\/long: model\.safetensors: size is \d+ bytes, expected 300000;/,
    );
  });

  test("is tried again after 429 and 5xx, at the hub and at the store", async () => {
    hub.addModel("org/busy", { ...SMALL_FILES, "model.safetensors": LARGE });
    const seen = new Map<string, number>();
    hub.fault = (request) => {
      const count = (seen.get(request) ?? 0) + 1;
      seen.set(request, count);
      return [{ status: 503 }, { status: 429, headers: { "retry-after": "0.01" } }][count - 1];
    };
    expect(readdirSync(await pull("org/busy"))).toContain("model.safetensors");
  });

  test("stops at a signal, keeps what has come, and goes on from there", async () => {
    hub.addModel("org/stopped", { ...SMALL_FILES, "model.safetensors": LARGE });
    const settings = settingsOf(hub);
    const stop = new AbortController();
    hub.fault = (request) => (request === `GET /${sha256(LARGE)}` ? { cutAt: 120_000 } : undefined);
    const stopped = pull("org/stopped", {
      settings,
      signal: stop.signal,
      onProgress: (done) => done >= 50_000 && stop.abort(new Error("stopped")),
    });
    await expect(stopped).rejects.toThrow("stopped");
    hub.fault = () => undefined;
    hub.requests.length = 0;
    await pull("org/stopped", { settings });
    expect(hub.requests.filter((line) => line.startsWith(`GET /${sha256(LARGE)}`))).toEqual([
      expect.stringMatching(/ bytes=\d{5,6}-$/),
    ]);
  });

  test.each(Array.from({ length: 10 }, (_, round) => round))("by two at once into one cache, round %i", async () => {
    hub.addModel("org/both", { ...SMALL_FILES, "model.safetensors": LARGE });
    const settings = settingsOf(hub);
    const [one, other] = await Promise.all([pull("org/both", { settings }), pull("org/both", { settings })]);
    expect(one).toBe(other);
    expect(readFileSync(join(one, "model.safetensors")).equals(LARGE)).toBe(true);
  });

  test("links by two at once replace the same stale links", async () => {
    const folder = newFolder();
    const names = Array.from({ length: 200 }, (_, i) => `model-${i}.safetensors`);
    mkdirSync(snapshotFolder(folder, "commit"), { recursive: true });
    for (const name of names) symlinkSync("stale", join(snapshotFolder(folder, "commit"), name));
    await Promise.all([...names, ...names].map((name) => linkBlob(folder, "commit", name, "oid")));
    expect(new Set(readdirSync(snapshotFolder(folder, "commit")))).toEqual(new Set(names));
    for (const name of names) {
      expect(readlinkSync(join(snapshotFolder(folder, "commit"), name))).toBe("../../blobs/oid");
    }
  });

  test("to a disk that is full says so, and what is yet to come", async () => {
    hub.addModel("org/full", { ...SMALL_FILES, "model.safetensors": LARGE });
    const settings = settingsOf(hub);
    const blobs = join(repoOf(settings.cache, "org/full"), "blobs");
    mkdirSync(blobs, { recursive: true });
    symlinkSync("/dev/full", join(blobs, `${sha256(LARGE)}.incomplete`));
    await expect(pull("org/full", { settings })).rejects.toThrow(
      "org/full: model.safetensors needs 300000 more bytes, and the disk is full (ENOSPC: no space left on device, write): free some, or set HF_HUB_CACHE to a folder on another disk; the same command goes on where it stopped",
    );
  });

  test("fetches what another program has left out of a commit", async () => {
    const commit = hub.addModel("org/part", { ...SMALL_FILES, "model.safetensors": LARGE });
    const settings = settingsOf(hub);
    const folder = await pull("org/part", { settings });
    unlinkSync(join(folder, "tokenizer.json"));
    expect(await pull(`org/part@${commit}`, { settings })).toBe(folder);
    expect(readFileSync(join(folder, "tokenizer.json"), "utf8")).toBe(SMALL_FILES["tokenizer.json"]);
  });

  test("fetches an index of shards whose blob is gone", async () => {
    const index = '{"weight_map": {"a": "model-00001-of-00001.safetensors"}}';
    const files = { ...SMALL_FILES, "model.safetensors.index.json": index, "model-00001-of-00001.safetensors": LARGE };
    hub.addModel("org/gone", files);
    const settings = settingsOf(hub);
    const folder = await pull("org/gone", { settings });
    unlinkSync(join(repoOf(settings.cache, "org/gone"), "blobs", gitSha1(Buffer.from(index))));
    expect(await pull("org/gone", { settings })).toBe(folder);
    expect(readFileSync(join(folder, "model.safetensors.index.json"), "utf8")).toBe(index);
  });

  test("puts its link in the place of another", async () => {
    const commit = hub.addModel("org/links", { ...SMALL_FILES, "model.safetensors": LARGE });
    const settings = settingsOf(hub);
    const snapshot = join(repoOf(settings.cache, "org/links"), "snapshots", commit);
    mkdirSync(snapshot, { recursive: true });
    writeFileSync(join(snapshot, "config.json"), "a file");
    symlinkSync("../../blobs/none", join(snapshot, "model.safetensors"));
    await pull("org/links", { settings });
    expect(readFileSync(join(snapshot, "config.json"), "utf8")).toBe(SMALL_FILES["config.json"]);
    expect(readFileSync(join(snapshot, "model.safetensors")).equals(LARGE)).toBe(true);
  });

  test("needs room on the disk", async () => {
    hub.addModel("org/huge", { ...SMALL_FILES, "model.safetensors": LARGE });
    hub.listedSizes["model.safetensors"] = 1e18;
    await expect(pull("org/huge")).rejects.toThrow(
      /^org\/huge: needs 1,000,000,000,000 MB, and the disk of .*models--org--huge has [\d,]+ MB: free some, or set HF_HUB_CACHE to a folder on another disk$/,
    );
    delete hub.listedSizes["model.safetensors"];
  });
});

describe("what is no model", () => {
  test.each([
    [
      { "config.json": "{}", "a.gguf": "", "b.gguf": "" },
      "has its weights in a.gguf, b.gguf alone, expected model.safetensors, model.safetensors.index.json or adapter_model.safetensors: download one for heddle convert, or pull the repository that they were made from",
    ],
    [
      { "config.json": "{}", "pytorch_model.bin": "" },
      "has its weights in pytorch_model.bin alone, expected model.safetensors, model.safetensors.index.json or adapter_model.safetensors: pull a repository or a revision in safetensors",
    ],
    [
      { "config.json": "{}" },
      "has no weights, expected model.safetensors, model.safetensors.index.json or adapter_model.safetensors",
    ],
    [{ "model.safetensors": "" }, "has no config.json and no adapter_config.json: it is no model of transformers"],
    [
      { "config.json": "{}", "model.safetensors.index.json": '{"weight_map": {"a": "x.safetensors"}}' },
      "model.safetensors.index.json names x.safetensors, which is not there",
    ],
    [
      { "config.json": "{}", "model.safetensors.index.json": "[]" },
      "model.safetensors.index.json is no index of shards",
    ],
  ])("%j", async (files, problem) => {
    hub.addModel("org/none", files as Record<string, string>);
    await expect(pull("org/none")).rejects.toThrow(`org/none: ${problem}`);
  });
});

test("a folder of the cache that is not there is made", async () => {
  hub.addModel("org/first", { ...SMALL_FILES, "model.safetensors": LARGE });
  const cache = join(newFolder(), "a", "b");
  expect(await pull("org/first", { settings: settingsOf(hub, { cache }) })).toContain(cache);
});
