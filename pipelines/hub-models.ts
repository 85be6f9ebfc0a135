/** The models of the hub that a command line or a config names: found before anything runs, with a bar while they come. */
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import { HubError } from "../hub/errors.js";
import { findModel, isOfHub } from "../hub/resolve.js";
import { SAME_COMMAND, withByteProgress } from "./byte-progress.js";
import { modelFolder, modelFolders } from "./flags.js";

/** The folder that a model argument stands for (hub/resolve.ts). Ctrl-C keeps what has come. */
export async function fetchModel(argument: string): Promise<string> {
  if (!(await isOfHub(argument))) return argument;
  return withByteProgress(`pull ${argument}`, SAME_COMMAND, (run) => findModel(argument, run));
}

/** Puts folders in the place of the names of models among a command's flags. */
export async function fetchModelFlags(command: CommandUnknownOpts): Promise<void> {
  for (const option of command.options) {
    if (option.parseArg !== modelFolder && option.parseArg !== modelFolders) continue;
    const key = option.attributeName();
    const value = command.getOptionValue(key) as string | readonly string[] | undefined;
    if (typeof value === "string") command.setOptionValue(key, await fetchModel(value));
    if (!Array.isArray(value)) continue;
    const folders: string[] = [];
    for (const name of value) folders.push(await fetchModel(name));
    command.setOptionValue(key, folders);
  }
  if (command.options.some((option) => option.attributeName() === "adapter")) await fetchBase(command);
}

/** Where --model is an adapter alone whose base is on the hub: --model becomes the base, and --adapter the adapter. */
async function fetchBase(command: CommandUnknownOpts): Promise<void> {
  const { model, adapter } = command.opts() as { model: string; adapter?: string };
  const { isAdapterAlone, localBase } = await import("../model/lora.js");
  if (adapter !== undefined || !(await isAdapterAlone(model))) return;
  const { readAdapterConfig } = await import("../model/adapter-config.js");
  const { path, base, baseRevision } = await readAdapterConfig(model);
  if (base === null || (await localBase(model, base)) !== null || !(await isOfHub(base))) return;
  const folder = await fetchModel(baseRevision === null ? base : `${base}@${baseRevision}`).catch((error: unknown) => {
    if (!(error instanceof HubError)) throw error;
    throw new HubError(`${path}: "base_model_name_or_path": ${error.message}`, error.status, { cause: error });
  });
  command.setOptionValue("model", folder);
  command.setOptionValue("adapter", model);
}
