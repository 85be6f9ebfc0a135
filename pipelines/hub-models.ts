/** The models of the hub that a command line or a config names: found before anything runs, with a bar while they come. */
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
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
}
