/** From a command line to an exit code: 0 done, 1 a crash, 2 bad input, 75 interrupted and resumable (EX_TEMPFAIL). */
import { constants } from "node:os";
import type { Command } from "@commander-js/extra-typings";
import { CommanderError } from "commander";
import { ChildCrash, InterruptedError, isTemporary, isUserError } from "./errors.js";

const exitCodes = { done: 0, crash: 1, badInput: 2, resumable: 75 } as const;

/** Parses `args` (without node and script), runs the command, and writes what went wrong to stderr. */
export async function runProgram(program: Command, args: readonly string[]): Promise<number> {
  program.exitOverride().configureOutput({
    // "error: unknown command 'mege'\n(Did you mean merge?)": one line.
    outputError: (text, write) => write(text.replace("\n(", " (")),
  });
  for (const command of program.commands) command.copyInheritedSettings(program);
  // `heddle inspect model | head` closes stdout early: that is no error.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(exitCodes.done);
    throw error;
  });
  try {
    await program.parseAsync(args, { from: "user" });
    return exitCodes.done;
  } catch (error) {
    return reportError(error);
  }
}

function reportError(error: unknown): number {
  // Commander has written its own line.
  if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.done : exitCodes.badInput;
  if (error instanceof InterruptedError) {
    process.stderr.write(`${error.message}\n`);
    return error.isResumable ? exitCodes.resumable : 128 + constants.signals[error.signal];
  }
  if (isUserError(error) || isTemporary(error) || error instanceof ChildCrash) {
    process.stderr.write(`error: ${error.message}\n`);
    if (isTemporary(error)) return exitCodes.resumable;
    return isUserError(error) ? exitCodes.badInput : exitCodes.crash;
  }
  const stack = error instanceof Error ? error.stack : `${error}`;
  process.stderr.write(`${stack}\nThis is a defect in heddle. Please report it with the lines above\n`);
  return exitCodes.crash;
}
