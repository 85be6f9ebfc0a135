/** What a schema cannot see: expressions, files, and keys that depend on each other. Each check works on unchecked data. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { compileSchedule, type ScheduleVariables } from "../config/schedule.js";
import { describe, type Mistake } from "../config/yaml-source.js";
import { parseModelName } from "../hub/name.js";
import { openWeights } from "../model/load.js";
import { isAdapterAlone } from "../model/lora.js";
import { inRange, type Range, rangeText, scheduleFields, sections } from "./config-schema.js";

type Unchecked = Record<string, unknown>;

/** The value where it is a mapping, else an empty one: the schema reports what is none. */
export function mapping(value: unknown): Unchecked {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Unchecked) : {};
}

export const isUrl = (text: string): boolean => /^https?:\/\//.test(text) && URL.canParse(text);

/** Compiles every expression and evaluates it at about a hundred steps, the first and the last among them. */
export async function scheduleMistakes(config: Unchecked): Promise<Mistake[]> {
  const iterations = count(mapping(config.warp).iterations, 1);
  const mistakes: Mistake[] = [];
  for (const [section, schema] of Object.entries(sections)) {
    const values = mapping(config[section]);
    for (const [key, field] of Object.entries(schema.shape)) {
      const value = values[key];
      const kind = scheduleFields.get(field);
      if (kind === undefined || typeof value !== "string" || value.trim() === "") continue;
      const points = kind.variables.includes("layer") ? layerPoints(iterations) : stepPoints(values.steps, iterations);
      const problem = await scheduleProblem(value, kind.range, points);
      if (problem !== undefined) mistakes.push({ path: [section, key], problem });
    }
  }
  return mistakes;
}

/** The first thing wrong with an expression, or undefined. */
async function scheduleProblem(
  value: string,
  range: Range,
  points: readonly ScheduleVariables[],
): Promise<string | undefined> {
  try {
    const evaluate = await compileSchedule(value);
    for (const point of points) {
      const result = evaluate(point);
      if (inRange(result, range)) continue;
      const at = Object.entries(point).map(([name, value]) => `${name} ${value}`);
      return `expected ${rangeText(range)}, got ${result} from ${JSON.stringify(value)} at ${at.join(", ")}`;
    }
    return undefined;
  } catch (error) {
    return `expected an expression, got ${(error as Error).message}`;
  }
}

/** A number of steps that is itself a mistake is reported elsewhere; here anything will do. */
const count = (value: unknown, otherwise: number): number =>
  Number.isSafeInteger(value) && (value as number) > 0 ? (value as number) : otherwise;

function stepPoints(stepsGiven: unknown, iterations: number): ScheduleVariables[] {
  const steps = count(stepsGiven, 100);
  const stride = Math.ceil(steps / 100);
  const visited = new Set([...Array.from({ length: Math.ceil(steps / stride) }, (_, i) => 1 + i * stride), steps]);
  return [...new Set([1, iterations])].flatMap((iteration) => [...visited].map((step) => ({ step, steps, iteration })));
}

/** How many layers the model has is not known yet: any number of them will do. */
function layerPoints(iterations: number): ScheduleVariables[] {
  const layers = 4;
  return [...new Set([1, iterations])].flatMap((iteration) =>
    Array.from({ length: layers }, (_, layer) => ({ iteration, layer, layers })),
  );
}

/** Folders and files that are not there. Models of the hub are looked for once nothing else is wrong (config-models.ts). */
export async function fileMistakes(config: Unchecked): Promise<Mistake[]> {
  const check = async (key: string, problem: (path: string) => Promise<string | undefined>): Promise<Mistake[]> => {
    const keys = key.split(".");
    const path = keys.reduce<unknown>((value, name) => mapping(value)[name], config);
    if (typeof path !== "string" || path.trim() === "") return [];
    const found = await problem(path);
    return found === undefined ? [] : [{ path: keys, problem: found }];
  };
  const mistakes = await Promise.all([
    check("model", modelProblem),
    check("teacher", async (path) => (isUrl(path) ? undefined : modelProblem(path, " or an http(s) URL"))),
    check("rl.reward.model", modelProblem),
    check("train_data", dataProblem),
    check("eval_data", dataProblem),
  ]);
  return mistakes.flat();
}

async function modelProblem(path: string, alternative = ""): Promise<string | undefined> {
  const expected = `expected a folder with config.json${alternative}, got ${JSON.stringify(path)}`;
  const kind = await kindOf(path);
  if (kind === undefined && parseModelName(path) !== null) return undefined;
  if (kind !== "folder") return `${expected}, which ${kind === "file" ? "is a file" : "does not exist"}`;
  if ((await kindOf(join(path, "config.json"))) === "file") return undefined;
  if (!(await isAdapterAlone(path))) return `${expected}, which has none`;
  // An adapter: with its base it is a model.
  return openWeights(path).then(
    () => undefined,
    (error: Error) => error.message,
  );
}

async function dataProblem(path: string): Promise<string | undefined> {
  const kind = await kindOf(path);
  const got = kind === "folder" ? "is a folder" : "does not exist";
  return kind === "file" ? undefined : `expected a JSONL file, got ${JSON.stringify(path)}, which ${got}`;
}

async function kindOf(path: string): Promise<"file" | "folder" | undefined> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) return undefined;
  return found.isDirectory() ? "folder" : "file";
}

/** A teacher behind a URL scores; it does not write. */
export function teacherMistakes(config: Unchecked): Mistake[] {
  const { teacher } = config;
  const { seq_kd: seqKd, lmbda = 1 } = mapping(config.distill);
  if (seqKd !== true || lmbda === 1 || typeof teacher !== "string" || !isUrl(teacher)) return [];
  const problem = "expected false, since a teacher behind a URL writes no completions to learn from, got true";
  return [{ path: ["distill", "seq_kd"], problem }];
}

const isSet = (value: unknown): boolean => value !== undefined && value !== null;

/** An adapter says what learns: patterns beside it would say something else. */
export function loraMistakes(config: Unchecked): Mistake[] {
  return ["sft", "distill", "rl"].flatMap((name) => {
    const section = mapping(config[name]);
    const [lora, trainable] = ["lora", "trainable"].map((key) => section[key] ?? config[key]);
    if (config[name] === undefined || !isSet(lora) || !isSet(trainable)) return [];
    const path = isSet(section.trainable) ? [name, "trainable"] : ["trainable"];
    return [{ path, problem: `expected null beside lora, which says what learns, got ${describe(trainable)}` }];
  });
}

/** A quantised base is in 4 or in 8 bits, and learns nothing itself. */
export function quantisedMistakes(config: Unchecked): Mistake[] {
  const [key, other] = ["load_in_4bit", "load_in_8bit"].filter((name) => config[name] === true);
  if (key === undefined) return [];
  if (other !== undefined) return [{ path: [other], problem: `expected false beside ${key}, got true` }];
  const learnsAll = ["sft", "distill", "rl"].filter((name) => {
    const section = mapping(config[name]);
    return config[name] !== undefined && !["lora", "trainable"].some((what) => isSet(section[what] ?? config[what]));
  });
  const problem = "expected false where all of the model learns: set lora or trainable, got true";
  return learnsAll.length > 0 ? [{ path: [key], problem }] : [];
}
