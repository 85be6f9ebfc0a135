/** The models of a config that are on the hub: folders while it runs, names with their commit in the run's config.yaml. */
import { join } from "node:path";
import { parse } from "yaml";
import type { Mistake } from "../config/yaml-source.js";
import { HubError } from "../hub/errors.js";
import { parseModelName, pinnedName } from "../hub/name.js";
import { isOfHub } from "../hub/resolve.js";
import { readTextIfAny } from "../model/json.js";
import type { Config } from "./config.js";
import { isUrl, mapping } from "./config-checks.js";

/** The config with other names for its models; `rename` is told the key, such as rl.reward.model. */
function withModels(config: Config, rename: (name: string, key: string) => string): Config {
  const { model, teacher, rl } = config;
  const of = (reward: NonNullable<Config["rl"]>["reward"]) =>
    reward === "exact_match" ? reward : { ...reward, model: rename(reward.model, "rl.reward.model") };
  return {
    ...config,
    model: rename(model, "model"),
    teacher: teacher && rename(teacher, "teacher"),
    ...(rl && { rl: { ...rl, reward: of(rl.reward) } }),
  };
}

/** The config with folders in the place of models of the hub, and a mistake for each that is not found. */
export async function findModels(config: Config): Promise<{ config: Config; mistakes: Mistake[] }> {
  const begun = await configOfRun(config.output_dir);
  const names = new Map<string, string>();
  withModels(config, (name, key) => {
    names.set(key, name);
    return name;
  });
  const folders = new Map<string, string>();
  const mistakes: Mistake[] = [];
  for (const [key, name] of names) {
    if (isUrl(name) || !(await isOfHub(name))) continue;
    const { fetchModel } = await import("./hub-models.js");
    const path = key.split(".");
    try {
      const before = path.reduce<unknown>((value, part) => mapping(value)[part], begun);
      folders.set(key, await fetchModel(asBegun(name, before)));
    } catch (error) {
      if (!(error instanceof HubError)) throw error;
      mistakes.push({ path, problem: error.message });
    }
  }
  return { config: withModels(config, (name, key) => folders.get(key) ?? name), mistakes };
}

/** The config with the names of models, and their commits, in the place of their folders in the hub's cache. */
export const withPinnedNames = (config: Config): Config => withModels(config, (name) => pinnedName(name) ?? name);

/** The commit that a run began with is kept to its end: where the name says no revision, it stands for that one. */
function asBegun(name: string, begun: unknown): string {
  if (typeof begun !== "string") return name;
  const [wanted, before] = [parseModelName(name), parseModelName(begun)];
  return wanted?.revision === null && wanted.repo === before?.repo ? begun : name;
}

/** What openRun makes of a broken file is said there. */
async function configOfRun(dir: string): Promise<Record<string, unknown>> {
  try {
    return mapping(parse((await readTextIfAny(join(dir, "config.yaml"))) ?? ""));
  } catch {
    return {};
  }
}
