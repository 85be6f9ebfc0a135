/** Full disks. */
import { statfs } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { ModelError } from "./errors.js";

export const isDiskFull = (error: unknown): error is Error =>
  ["ENOSPC", "EDQUOT"].includes((error as NodeJS.ErrnoException).code ?? "");

/** Runs what writes a model of so many bytes to `out`. @throws ModelError that says how much room it takes, and has */
export async function needingRoom(out: string, bytes: number, write: () => Promise<void>): Promise<void> {
  try {
    await write();
  } catch (error) {
    if (!isDiskFull(error)) throw error;
    const { bavail, bsize } = await statfs(dirname(resolve(out)));
    const needed = `the model takes ${megabytes(bytes)}, ${megabytes(bavail * bsize)} are free`;
    throw new ModelError(out, `cannot be written, the disk is full: ${needed}`, { cause: error });
  }
}

/** Rounded up: "1,234 MB". */
export const megabytes = (bytes: number): string => `${Math.ceil(bytes / 1e6).toLocaleString("en-US")} MB`;
