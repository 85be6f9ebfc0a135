/** A model argument: a folder, or the name of a model on the hub. */
import { stat } from "node:fs/promises";
import { HubError, HubUnavailableError } from "./errors.js";
import { modelName, parseModelName } from "./name.js";
import type { PullOptions } from "./pull.js";

/** Whether an argument names a model of the hub: a file or folder of that name comes first. */
export const isOfHub = async (argument: string): Promise<boolean> =>
  parseModelName(argument) !== null && (await stat(argument).catch(() => null)) === null;

/**
 * The folder that a model argument stands for: what exists is taken as it is, org/name[@revision] comes from the cache or
 * the hub, and anything else is given back for its reader to complain of.
 *
 * @throws HubError or HubUnavailableError that says both: no such folder, and why not from the hub
 */
export async function findModel(argument: string, options: PullOptions = {}): Promise<string> {
  if (!(await isOfHub(argument))) return argument;
  const { pullModel } = await import("./pull.js");
  try {
    return await pullModel(modelName(argument), options);
  } catch (error) {
    const message = (of: Error) => `no such folder, and not from the hub: ${of.message}`;
    if (error instanceof HubError) throw new HubError(message(error), error.status, { cause: error });
    if (error instanceof HubUnavailableError) throw new HubUnavailableError(message(error), { cause: error });
    throw error;
  }
}
