// The link in node_modules through which tfjs-node-gpu finds the compiled binding. `npm ci` removes it.

import { randomUUID } from "node:crypto";
import { existsSync, lstatSync, readFileSync, realpathSync } from "node:fs";
import { mkdir, rename, symlink, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { bindingFile } from "./setup-binding.js";
import { readFolder } from "./setup-cache.js";
import type { Device } from "./setup-wheels.js";

/** What is linked. `tensorflow` is the folder that holds tensorflow/ and, for a GPU, nvidia/. */
export type LinkedBinding = { version: string; device: Device; tensorflow: string };

export const tfjsFolder = (): string =>
  dirname(createRequire(import.meta.url).resolve("@tensorflow/tfjs-node-gpu/package.json"));

/** tfjs-node-gpu looks for its binding here (node-pre-gyp, N-API version 8). */
export const bindingLink = (): string => join(tfjsFolder(), "lib", "napi-v8", bindingFile);

/** What the link leads to; undefined when it leads nowhere or to a binding that set-up did not make. */
export function readLink(link: string): LinkedBinding | undefined {
  if (!existsSync(link)) return undefined;
  return readFolder(dirname(realpathSync(link))) as LinkedBinding | undefined;
}

/** Points the link to the binding in a cache folder. Returns whether it had to be changed. */
export async function ensureLink(link: string, bindingFolder: string): Promise<boolean> {
  const target = join(bindingFolder, bindingFile);
  if (existsSync(link) && realpathSync(link) === realpathSync(target)) return false;
  await mkdir(dirname(link), { recursive: true });
  const temporary = `${link}.${randomUUID()}.tmp`;
  await symlink(target, temporary);
  await rename(temporary, link);
  return true;
}

/** The device that was asked for by name, remembered beside the link so that later set-ups without a name keep it. */
export function readChoice(link: string): Device | undefined {
  const path = choicePath(link);
  const text = existsSync(path) ? readFileSync(path, "utf8").trim() : "";
  return text === "cpu" || text === "gpu" ? text : undefined;
}

export async function writeChoice(link: string, device: Device): Promise<void> {
  await mkdir(dirname(link), { recursive: true });
  await writeFile(choicePath(link), `${device}\n`);
}

const choicePath = (link: string): string => join(dirname(link), "chosen-device");

/** Throws unless tfjs can be imported. Call it before: tfjs' own message leads to a library of 2022. */
export function checkBinding(link: string = bindingLink()): void {
  if (!existsSync(link)) {
    const dangling = lstatSync(link, { throwIfNoEntry: false }) !== undefined;
    throw new Error(
      dangling
        ? `TensorFlow is not set up: ${link} leads to a file that is gone. Run: npm run setup`
        : `TensorFlow is not set up: ${link} is missing. Run: npm run setup`,
    );
  }
  const tensorflow = readLink(link)?.tensorflow;
  if (tensorflow && !readFolder(tensorflow)) {
    throw new Error(`TensorFlow is not set up: ${tensorflow} is gone or damaged. Run: npm run setup`);
  }
}
