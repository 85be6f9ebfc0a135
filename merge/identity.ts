// What tells one merge from another: the plan, and the input files as they are.
import { createHash } from "node:crypto";
import { stat } from "node:fs/promises";
import { SafetensorsError } from "safetensors-ts";
import type { Plan } from "./plan.js";

/** A digest of a plan, of how its output is cut into shards, and of the size and time of change of every input file. */
export async function identityOf(plan: Plan, shardSize: number): Promise<string> {
  const files = await Promise.all(plan.files.map(fileState));
  const text = JSON.stringify({ plan, shardSize, files }, (_, value: unknown) =>
    value instanceof Int32Array ? Buffer.from(value.buffer).toString("base64") : value,
  );
  return createHash("sha256").update(text).digest("hex");
}

/** Throws if an input file has been written to since `identityOf` gave `identity`. */
export async function checkUnchanged(plan: Plan, shardSize: number, identity: string): Promise<void> {
  if ((await identityOf(plan, shardSize)) === identity) return;
  throw new SafetensorsError(undefined, `an input changed while it was merged: one of ${plan.files.join(", ")}`);
}

async function fileState(path: string): Promise<string> {
  const { size, mtimeNs } = await stat(path, { bigint: true });
  return `${size} ${mtimeNs}`;
}
