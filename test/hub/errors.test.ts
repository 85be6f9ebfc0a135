// What the hub refuses, and what to do about it: exact messages.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { HubError, HubUnavailableError } from "../../hub/errors.js";
import { modelName, parseModelName } from "../../hub/name.js";
import { pullModel } from "../../hub/pull.js";
import { findModel } from "../../hub/resolve.js";
import type { HubSettings } from "../../hub/settings.js";
import { isTemporary, isUserError } from "../../pipelines/errors.js";
import { SMALL_FILES, settingsOf, weights } from "./hub-folder.js";
import { type FakeHub, startHub } from "./server.js";

let hub: FakeHub;
beforeAll(async () => {
  hub = await startHub();
  for (const repo of ["org/open", "org/gated", "org/private"]) {
    hub.addModel(repo, { ...SMALL_FILES, "model.safetensors": weights(1000) });
  }
  hub.repos["org/gated"]!.isGated = true;
  hub.repos["org/private"]!.isPrivate = true;
});
beforeEach(() => {
  hub.fault = () => undefined;
});
afterAll(() => hub.close());

const pull = (text: string, others: Partial<HubSettings> = {}) =>
  pullModel(modelName(text), { settings: settingsOf(hub, others), firstWaitMs: 1 });

describe("the hub", () => {
  test("keeps a gated model from those without a token, and from those without access", async () => {
    await expect(pull("org/gated")).rejects.toThrow(
      `org/gated: is gated: accept its licence at ${hub.url}/org/gated, then set HF_TOKEN to a token of that account`,
    );
    await expect(pull("org/gated", { token: "hf_other", tokenFrom: "/home/token" })).rejects.toThrow(
      `org/gated: is gated, and the token of /home/token has no access: accept its licence at ${hub.url}/org/gated with the account of that token (a fine-grained token must allow gated repositories, too)`,
    );
    expect(await pull("org/gated", { token: "hf_good" })).toContain("models--org--gated");
  });

  test("says the same of a model that is private and of one that is not there", async () => {
    for (const repo of ["org/private", "org/nothing"]) {
      await expect(pull(repo)).rejects.toThrow(
        `${repo}: not found at ${hub.url}: check the spelling; a private one needs HF_TOKEN`,
      );
    }
    await expect(pull("org/nothing", { token: "hf_good" })).rejects.toThrow(
      `org/nothing: not found at ${hub.url}: check the spelling; or the token of HF_TOKEN may not see it`,
    );
  });

  test("knows no such token", async () => {
    await expect(pull("org/open", { token: "hf_old" })).rejects.toThrow(
      `${hub.url}: refuses the token of HF_TOKEN: Invalid credentials in Authorization header`,
    );
  });

  test("has no such revision", async () => {
    await expect(pull("org/open@v9")).rejects.toThrow('org/open: has no revision "v9"');
  });

  test("has no time", async () => {
    hub.fault = () => ({ status: 503, headers: { "x-error-message": "overloaded" } });
    await expect(pull("org/open")).rejects.toMatchObject({
      name: "HubUnavailableError",
      message: `org/open: ${new URL(hub.url).host} answers 503: overloaded`,
    });
  });

  test("is something else", async () => {
    hub.fault = () => ({ status: 200, body: "<html>Sign in to the wireless network</html>" });
    await expect(pull("org/open")).rejects.toThrow(`${hub.url}: answers as no hub does: Unexpected token`);
    hub.fault = () => ({ status: 200, body: "{}" });
    await expect(pull("org/open")).rejects.toThrow(
      `${hub.url}: answers as no hub does: the commit of org/open is undefined`,
    );
  });

  test("cannot be reached", async () => {
    const gone = await startHub();
    await gone.close();
    await expect(pull("org/open", { endpoint: gone.url })).rejects.toMatchObject({
      name: "HubUnavailableError",
      message: `cannot reach ${new URL(gone.url).host} (connect ECONNREFUSED ${new URL(gone.url).host}): check the network and HF_ENDPOINT; with HF_HUB_OFFLINE=1 only the cache is used`,
    });
  });
});

describe("the cache", () => {
  test("is all there is with HF_HUB_OFFLINE", async () => {
    const settings = settingsOf(hub, { isOffline: true });
    for (const name of ["org/open", "org/open@v1"]) {
      await expect(pullModel(modelName(name), { settings })).rejects.toThrow(
        `${name}: is not in the cache (${settings.cache}), and HF_HUB_OFFLINE forbids to ask the hub`,
      );
    }
    const folder = await pullModel(modelName("org/open"), { settings: { ...settings, isOffline: false } });
    expect(await pullModel(modelName("org/open"), { settings })).toBe(folder);
  });

  test("will do where the hub does not answer or refuses, with a note", async () => {
    const settings = settingsOf(hub, { token: "hf_good" });
    const folder = await pullModel(modelName("org/private"), { settings });
    const notes: string[] = [];
    const onNote = (text: string) => notes.push(text);
    expect(await pullModel(modelName("org/private"), { settings: { ...settings, token: null }, onNote })).toBe(folder);
    hub.fault = () => ({ status: 500 });
    expect(await pullModel(modelName("org/private"), { settings, onNote, firstWaitMs: 1 })).toBe(folder);
    expect(notes).toEqual([
      `org/private: not found at ${hub.url}: check the spelling; a private one needs HF_TOKEN; taken from the cache: ${folder}`,
      `org/private: ${new URL(hub.url).host} answers 500; taken from the cache: ${folder}`,
    ]);
  });
});

describe("a model argument", () => {
  test("that is neither a folder nor on the hub says both", async () => {
    await expect(findModel("org/nothing", { settings: settingsOf(hub) })).rejects.toThrow(
      `no such folder, and not from the hub: org/nothing: not found at ${hub.url}: check the spelling; a private one needs HF_TOKEN`,
    );
  });

  test("is a folder first, and no name is asked of the hub that is none", async () => {
    hub.requests.length = 0;
    for (const path of ["test/hub", "nowhere", "./org/open", "/org/open", "a/b/c"]) {
      expect(await findModel(path, { settings: settingsOf(hub) })).toBe(path);
    }
    expect(hub.requests).toEqual([]);
    expect(await findModel("org/open", { settings: settingsOf(hub) })).toContain("snapshots");
  });
});

describe("a name", () => {
  test.each([
    ["google/gemma-2-2b-it", "google/gemma-2-2b-it", null],
    ["a/b@main", "a/b", "main"],
    ["a/b@refs/pr/1", "a/b", "refs/pr/1"],
    ["a_1/b.c-d@v1.0", "a_1/b.c-d", "v1.0"],
  ])("%s", (text, repo, revision) => {
    expect(parseModelName(text)).toEqual({ repo, revision });
  });

  test.each([
    "gemma",
    "a/b/c",
    "a/",
    "/b",
    "a/b@",
    "a/b@../x",
    "a/b@x//y",
    "-a/b",
    "a/b.",
    "a/b--c",
    "a..b/c",
    "a/b.git",
    "a b/c",
    "../models/x",
    "./a/b",
    "https://huggingface.co/a/b",
    `a/${"b".repeat(95)}`,
  ])("%s is none", (text) => {
    expect(parseModelName(text)).toBeNull();
    expect(() => modelName(text)).toThrow(
      `expected org/name or org/name@revision, such as google/gemma-2-2b-it, got ${JSON.stringify(text)}`,
    );
  });
});

test("what a command ends with: 2 where it is the user's to mend, 75 where it may pass", () => {
  const [refused, unavailable] = [new HubError("no"), new HubUnavailableError("later")];
  expect([isUserError(refused), isTemporary(refused)]).toEqual([true, false]);
  expect([isUserError(unavailable), isTemporary(unavailable)]).toEqual([false, true]);
});
