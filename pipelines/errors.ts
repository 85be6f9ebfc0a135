/** The errors that decide how the program ends: what the user can mend, and what was interrupted. */

/** Bad input: a flag, a config, a file. The message is all that the user needs, so no stack is shown. */
export class UserError extends Error {
  override readonly name = "UserError";
}

/** The work was asked to stop and did. What it wrote is whole; where `isResumable`, the same command goes on from there. */
export class InterruptedError extends Error {
  override readonly name = "InterruptedError";

  constructor(
    readonly signal: NodeJS.Signals,
    readonly isResumable = false,
    howToGoOn = "run the same command again to go on",
  ) {
    super(`interrupted by ${signal}${isResumable ? `; ${howToGoOn}` : ""}`);
  }
}

/** The process that computes died without an answer: killed, out of memory, or a fault in native code. */
export class ChildCrash extends Error {
  override readonly name = "ChildCrash";
}

// By name, since errors arrive from another process and from packages that know nothing of this one.
const userErrors = new Set([
  "UserError",
  "ConfigError",
  "DataError",
  "HubError",
  "ScheduleError",
  "ModelError",
  "RecipeError",
  "SafetensorsError",
  "SetupError",
  "TeacherError",
  "TrainingError",
]);
const temporaryErrors = new Set(["HubUnavailableError", "TeacherUnavailableError"]);
const machineErrors = new Set(["EACCES", "EPERM", "ENOSPC", "EDQUOT", "EROFS"]);

/** True where the message alone tells the user what to mend: bad input, a full disk, a missing permission. */
export function isUserError(error: unknown): error is Error {
  return (
    error instanceof Error && (userErrors.has(error.name) || ("code" in error && machineErrors.has(`${error.code}`)))
  );
}

/** True where nothing is wrong here and the same command may succeed later. */
export function isTemporary(error: unknown): error is Error {
  return error instanceof Error && temporaryErrors.has(error.name);
}
