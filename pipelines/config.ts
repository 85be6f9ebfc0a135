/** Config files: YAML, checked as a whole before anything runs. The keys are in config-schema.ts. */
import { readFile } from "node:fs/promises";
import { basename, extname, join } from "node:path";
import { stringify } from "yaml";
import type { z } from "zod";
import { nearest } from "../config/did-you-mean.js";
import { describe, type KeyPath, type Mistake, readYaml } from "../config/yaml-source.js";
import {
  fileMistakes,
  loraMistakes,
  mapping,
  quantisedMistakes,
  scheduleMistakes,
  teacherMistakes,
} from "./config-checks.js";
import { findModels } from "./config-models.js";
import { configSchema, fields, lora, rewardModel, sections } from "./config-schema.js";
import { UserError } from "./errors.js";

/** A config with its defaults filled in. Keys are those of the file. */
export type Config = z.output<typeof configSchema>;

/** What each command cannot do without. */
const needs = {
  warp: ["teacher", "distill", "rl", "warp"],
  sft: ["sft"],
  distill: ["teacher", "distill"],
  rl: ["rl"],
} as const;

export type ConfigCommand = keyof typeof needs;

/** A config in which everything that the command needs is there. */
export type ConfigFor<C extends ConfigCommand> = Config & {
  [K in (typeof needs)[C][number]]: NonNullable<Config[K]>;
};

/** A config that cannot be run. The message has a line for each mistake: FILE:LINE: KEY: expected X, got Y. */
export class ConfigError extends UserError {}

/**
 * Reads and checks a config file. Models of the hub are downloaded; in the result they are folders.
 *
 * @param path relative to the working directory, as are the paths in the file
 * @param options.set overrides such as "rl.steps=50", whose values are YAML
 * @throws ConfigError that lists every mistake in the file and in `set`
 */
export async function loadConfig<C extends ConfigCommand>(
  path: string,
  { set, command }: { set: readonly string[]; command: C },
): Promise<ConfigFor<C>> {
  const text = await readFile(path, "utf8").catch((error: Error) => {
    throw new ConfigError(`${path}: expected a config file, got: ${error.message}`);
  });
  const source = readYaml(path, text, set);
  if (source.errors.length > 0) throw new ConfigError(source.errors.join("\n"));

  const isMapping = mapping(source.value) === source.value;
  const name = basename(path, extname(path));
  const value = isMapping ? { output_dir: join("runs", name), ...mapping(source.value) } : source.value;
  const raw = mapping(value);
  const parsed = configSchema.safeParse(value);
  const mistakes = [
    ...source.duplicates,
    ...(parsed.success ? [] : parsed.error.issues.flatMap((issue) => schemaMistakes(issue, value))),
    ...(isMapping ? missing(raw, command) : []),
    ...teacherMistakes(raw),
    ...loraMistakes(raw),
    ...quantisedMistakes(raw),
    ...(await scheduleMistakes(raw)),
    ...(await fileMistakes(raw)),
  ];
  const lines = [...new Set(source.report(mistakes)), ...source.badSettings];
  if (!parsed.success || lines.length > 0) throw new ConfigError(lines.join("\n"));
  const { config, mistakes: notFound } = await findModels(parsed.data);
  if (notFound.length > 0) throw new ConfigError(source.report(notFound).join("\n"));
  return config as ConfigFor<C>;
}

/** A config as YAML that loads to the same config again. */
export function stringifyConfig(config: Config): string {
  return stringify(config, { lineWidth: 0 });
}

function schemaMistakes(issue: z.core.$ZodIssue, value: unknown): Mistake[] {
  const path = issue.path as KeyPath;
  // Of a value that may be of several kinds and is of one of them: what is wrong within it.
  const within = issue.code === "invalid_union" ? issue.errors.find((of) => of.every(isWithin)) : undefined;
  if (within !== undefined)
    return within.flatMap((inner) => schemaMistakes({ ...inner, path: [...path, ...inner.path] }, value));
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => ({ path: [...path, key], problem: unknownKey(path, key) }));
  }
  const got = path.reduce<unknown>((parent, key) => (parent as Record<string | number, unknown>)[key], value);
  return [{ path, problem: `expected ${issue.message}, got ${describe(got)}` }];
}

const isWithin = ({ code, path }: z.core.$ZodIssue): boolean => code === "unrecognized_keys" || path.length > 0;

const subsections = { ...sections, lora, reward: rewardModel };

function unknownKey(parent: KeyPath, key: string): string {
  const name = parent.at(-1) as keyof typeof subsections | undefined;
  const known = Object.keys(name === undefined ? fields.shape : subsections[name].shape);
  const near = nearest(key, known);
  if (near !== undefined) return `unknown key; did you mean ${near}?`;
  const elsewhere = Object.entries({ "": fields, ...sections }).filter(([, { shape }]) => Object.hasOwn(shape, key));
  if (elsewhere.length > 0) {
    const places = elsewhere.map(([section]) => (section === "" ? `${key} at the top level` : `${section}.${key}`));
    return `unknown key; did you mean ${places.join(" or ")}?`;
  }
  return `unknown key; expected one of ${known.join(", ")}`;
}

function missing(config: Record<string, unknown>, command: ConfigCommand): Mistake[] {
  return needs[command]
    .filter((key) => config[key] === undefined || (key === "teacher" && config[key] === null))
    .map((key) => {
      const expected = key === "teacher" ? "a model folder or an http(s) URL" : "a section of keys";
      return { path: [key], problem: `expected ${expected}, which \`heddle ${command}\` needs, got nothing` };
    });
}
