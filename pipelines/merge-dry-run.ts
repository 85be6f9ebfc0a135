/** What `heddle merge --dry-run` prints: the plan in numbers, after all checks that need no weights. */
import { makePlan } from "../merge/make-plan.js";
import { sizeOf } from "../merge/plan-size.js";
import { readRecipe } from "../merge/recipe.js";
import { formatSeconds } from "./progress-text.js";
import { alignColumns } from "./table.js";

/** What one disk of today does; files that were read lately come faster. */
const DISK_BYTES_PER_SECOND = 1e9;

export async function describeMerge({
  recipe: path,
  set = [],
  seed,
  shardSize,
  findModel,
}: {
  recipe: string;
  set?: readonly string[];
  seed: number;
  shardSize: number;
  findModel?: (name: string) => Promise<string>;
}): Promise<string> {
  const recipe = await readRecipe(path, set);
  const { plan, models } = await makePlan(recipe, { seed, findModel });
  const { tensors, parameters, bytesRead, readings, bytesWritten, shards } = sizeOf(plan, shardSize);
  const seconds = (bytesRead * readings + bytesWritten) / DISK_BYTES_PER_SECOND;
  return alignColumns([
    ["method", recipe.method],
    ["models", models.join(", ")],
    ["tensors", `${tensors}`],
    ["parameters", parameters.toLocaleString("en-US")],
    ["to read", `${gigabytes(bytesRead)}${readings > 1 ? `, up to ${readings} times` : ""}`],
    ["to write", `${gigabytes(bytesWritten)} in ${shards.length} ${shards.length === 1 ? "file" : "files"}`],
    ["time", `about ${formatSeconds(seconds)} at 1 GB/s`],
  ]);
}

const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(2)} GB`;
