/** Parsers for flags: each returns the value, or says what it expected and what it got. */
import { existsSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { InvalidArgumentError } from "commander";
import { parseModelName } from "../hub/name.js";

/** An integer from `min` to `max`. */
export const integer =
  (min: number, max = Number.MAX_SAFE_INTEGER) =>
  (text: string): number => {
    const value = Number(text);
    if (/^[+-]?\d+$/.test(text) && value >= min && value <= max) return value;
    const range = max === Number.MAX_SAFE_INTEGER ? `${min} or more` : `from ${min} to ${max}`;
    throw new InvalidArgumentError(`expected an integer, ${range}`);
  };

/** A finite number from `min` to `max`. */
export const number =
  (min: number, max = Infinity) =>
  (text: string): number => {
    const value = Number(text);
    if (text.trim() !== "" && Number.isFinite(value) && value >= min && value <= max) return value;
    const range = max === Infinity ? `${min} or more` : `from ${min} to ${max}`;
    throw new InvalidArgumentError(`expected a number, ${range}`);
  };

/** Bytes, such as 5GB: units are powers of 1000, as in huggingface_hub and mergekit. */
export function bytes(text: string): number {
  const [, count, unit] = /^(\d+(?:\.\d+)?) ?([KMGT]?)B?$/i.exec(text) ?? [];
  const value = Math.floor(Number(count) * 1000 ** ["", "K", "M", "G", "T"].indexOf((unit ?? "").toUpperCase()));
  if (count !== undefined && value > 0) return value;
  throw new InvalidArgumentError("expected a size, such as 5GB or 500MB");
}

/** A share of probability: more than 0, at most 1. */
export function share(text: string): number {
  const value = Number(text);
  if (text.trim() !== "" && value > 0 && value <= 1) return value;
  throw new InvalidArgumentError("expected a number above 0 and at most 1");
}

export function existingFile(path: string): string {
  if (!existsSync(path)) throw new InvalidArgumentError(`no such file (looked in ${process.cwd()})`);
  if (statSync(path).isDirectory()) throw new InvalidArgumentError("is a folder, expected a file");
  return path;
}

/** A file, or "-" for stdin. */
export const inputFile = (path: string): string => (path === "-" ? path : existingFile(path));

export function existingFolder(path: string): string {
  if (!existsSync(path)) throw new InvalidArgumentError(`no such folder (looked in ${process.cwd()})`);
  if (!statSync(path).isDirectory()) throw new InvalidArgumentError("is a file, expected a folder");
  return path;
}

/** A model folder, or org/name[@revision] of the hub, which is a folder when the command runs (hub-models.ts). */
export function modelFolder(text: string): string {
  if (!existsSync(text) && parseModelName(text) !== null) return text;
  refuseGguf(text);
  return existingFolder(text);
}

function refuseGguf(path: string): void {
  if (!path.endsWith(".gguf") || !existsSync(path) || statSync(path).isDirectory()) return;
  throw new InvalidArgumentError("is a GGUF file: heddle convert makes a model folder of it");
}

/** A file of weights, or what modelFolder takes. */
export function modelPath(text: string): string {
  const isName = parseModelName(text) !== null && !/\.(gguf|safetensors|json)$/.test(text);
  if (existsSync(text) || isName) return text;
  throw new InvalidArgumentError(`no such file or folder (looked in ${process.cwd()})`);
}

/** A file of safetensors (or an index of such), or what modelFolder takes. */
export function checkpointPath(text: string): string {
  refuseGguf(text);
  return modelPath(text);
}

/** `--run DIR`, any number of times. */
export const modelFolders = (text: string, before: string[] = []): string[] => [...before, modelFolder(text)];

/** `--stop TEXT`, any number of times. */
export function collectTexts(text: string, before: string[] = []): string[] {
  if (text === "") throw new InvalidArgumentError("expected at least one character");
  return [...before, text];
}

/** A file that may be written, which need not exist while its folder must, or "-" for stdout. */
export function outputFile(path: string): string {
  if (path === "-") return path;
  if (existsSync(path) && statSync(path).isDirectory()) throw new InvalidArgumentError("is a folder, expected a file");
  const folder = dirname(resolve(path));
  if (!existsSync(folder)) throw new InvalidArgumentError(`its folder does not exist: ${folder}`);
  return path;
}

/** `--set key=value`, any number of times. */
export function collectSet(text: string, before: string[] = []): string[] {
  if (!/^[^=\s]+=/.test(text)) throw new InvalidArgumentError("expected key=value, as in rl.steps=50");
  return [...before, text];
}
