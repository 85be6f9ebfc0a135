/**
 * Whether heddle and Python's huggingface_hub share a cache: what one of them has pulled from a hub on loopback, the other
 * finds in the same folder without asking.
 *
 *     node dist/test/peers/hub-cache.js PYTHON
 */
import { deepStrictEqual } from "node:assert";
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { packageRoot } from "../../config/paths.js";
import { modelName } from "../../hub/name.js";
import { pullModel } from "../../hub/pull.js";
import { hubSettings } from "../../hub/settings.js";
import { filesOf, useHub } from "../hub/hub-folder.js";
import { startHub } from "../hub/server.js";

const [python = "python3"] = process.argv.slice(2);
const script = fileURLToPath(new URL("test/peers/hub_cache.py", packageRoot));
const models = fileURLToPath(new URL("test/fixtures/models", packageRoot));
const run = async (action: "find" | "pull", repo: string): Promise<string> =>
  (await promisify(execFile)(python, [script, action, repo], { env: process.env })).stdout.trim();

const hub = await startHub();
for (const name of ["gemma2-tiny", "gemma2-tiny-bf16-sharded"]) {
  const repo = `org/${name}`;
  hub.addModel(repo, filesOf(`${models}/${name}`));

  useHub(hub);
  const ours = await pullModel(modelName(repo));
  deepStrictEqual(await run("find", repo), ours);

  useHub(hub);
  const theirs = await run("pull", repo);
  const asked = hub.requests.length;
  deepStrictEqual(await pullModel(modelName(repo), { settings: { ...hubSettings(), isOffline: true } }), theirs);
  deepStrictEqual(hub.requests.length, asked);
  deepStrictEqual(await pullModel(modelName(repo)), theirs);
  deepStrictEqual(
    hub.requests.slice(asked).filter((line) => !line.includes("/api/")),
    [],
  );
  process.stdout.write(`${repo}: both find what the other has pulled\n`);
}
await hub.close();
