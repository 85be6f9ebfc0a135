// Runs other programs: pip, a compiler, nvidia-smi.

import { spawn } from "node:child_process";

/** How a program ended. `code` is null when a signal ended it. */
export type Ran = { code: number | null; stdout: string; stderr: string };

export type RunOptions = { env: NodeJS.ProcessEnv; signal?: AbortSignal | undefined; timeoutMs?: number };

/** Runs a program to its end, without a shell. undefined when there is no such program on PATH. */
export function run(command: string, args: readonly string[], options: RunOptions): Promise<Ran | undefined> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      // Messages are matched, so they must be in English.
      env: { ...options.env, LC_ALL: "C" },
      stdio: ["ignore", "pipe", "pipe"],
      ...(options.signal && { signal: options.signal }),
      ...(options.timeoutMs && { timeout: options.timeoutMs }),
    });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
    });
    child.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT" || error.code === "EACCES") resolve(undefined);
      else reject(error);
    });
    child.on("close", (code) => resolve({ code, stdout, stderr }));
  });
}
