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

const KEYS = ["model", "teacher"] as const;

type Folders = { [K in (typeof KEYS)[number]]?: string };

/** Folders of the config's models, and a mistake for each that is not found. */
export async function modelFolders(config: Config): Promise<{ folders: Folders; mistakes: Mistake[] }> {
  const begun = await configOfRun(config.output_dir);
  const folders: Folders = {};
  const mistakes: Mistake[] = [];
  for (const key of KEYS) {
    const name = config[key];
    if (name === null || isUrl(name) || !(await isOfHub(name))) continue;
    const { fetchModel } = await import("./hub-models.js");
    try {
      folders[key] = await fetchModel(asBegun(name, begun[key]));
    } catch (error) {
      if (!(error instanceof HubError)) throw error;
      mistakes.push({ path: [key], problem: error.message });
    }
  }
  return { folders, mistakes };
}

/** The config with the names of models, and their commits, in the place of their folders in the hub's cache. */
export function withPinnedNames(config: Config): Config {
  const { model, teacher } = config;
  return { ...config, model: pinnedName(model) ?? model, teacher: teacher && (pinnedName(teacher) ?? teacher) };
}

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
