/** What `heddle merge --dry-run` prints: the plan in numbers, after all checks that need no weights. */
import { byteLength, layOutCheckpoint } from "safetensors-ts";
import { makePlan } from "../merge/make-plan.js";
import { METHODS } from "../merge/methods.js";
import type { Source } from "../merge/plan.js";
import { readRecipe } from "../merge/recipe.js";
import { formatSeconds } from "./progress-text.js";
import { alignColumns } from "./table.js";

export async function describeMerge({
  recipe: path,
  set = [],
  seed,
  shardSize,
}: {
  recipe: string;
  set?: readonly string[];
  seed: number;
  shardSize: number;
}): Promise<string> {
  const recipe = await readRecipe(path, set);
  const { plan, models } = await makePlan(recipe, { seed });
  const { shards } = layOutCheckpoint(plan.tensors, { shardSize });
  const parameters = plan.tensors.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  const read = plan.tensors.reduce((sum, { source }) => sum + bytesRead(source), 0);
  const readings = Math.max(...plan.tensors.map(({ source }) => readingsOf(source)));
  const written = plan.tensors.reduce((sum, tensor) => sum + byteLength(tensor), 0);
  const rows = [
    ["method", recipe.method],
    ["models", models.join(", ")],
    ["tensors", `${plan.tensors.length}`],
    ["parameters", parameters.toLocaleString("en-US")],
    ["to read", `${gigabytes(read)}${readings > 1 ? `, up to ${readings} times` : ""}`],
    ["to write", `${gigabytes(written)} in ${shards.length} ${shards.length === 1 ? "file" : "files"}`],
    ["time", `about ${formatSeconds((read * readings + written) / DISK_BYTES_PER_SECOND)} at 1 GB/s`],
  ];
  return alignColumns(rows);
}

/** What one disk of today does; files that were read lately come faster. */
const DISK_BYTES_PER_SECOND = 1e9;

/** How often a tensor is read: once for each pass of its merges, and once to be written. */
function readingsOf(source: Source | null): number {
  if (source?.kind === "lora") return readingsOf(source.of);
  if (source?.kind !== "merge") return 1;
  const inner = Math.max(...[source.base, ...source.models].map(readingsOf));
  return METHODS[source.method].passes.length + inner;
}

/** Bytes of the tensors that a source is made of, each counted once. */
function bytesRead(source: Source | null): number {
  if (source === null) return 0;
  switch (source.kind) {
    case "tensor":
      return byteLength({ name: "", ...source.place });
    case "rows":
      return source.places.reduce((sum, place) => sum + byteLength({ name: "", ...place }), 0);
    case "lora":
      return bytesRead(source.of) + [source.a, source.b].reduce((sum, x) => sum + byteLength({ name: "", ...x }), 0);
    case "merge":
      return [source.base, ...source.models].reduce((sum, inner) => sum + bytesRead(inner), 0);
  }
}

const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(2)} GB`;
