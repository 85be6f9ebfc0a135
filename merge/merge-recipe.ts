// A merge by a recipe: from the recipe's file to a model folder.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { copySideFiles } from "../model/save.js";
import { mergeInto, type RunOptions } from "./engine.js";
import { describeGeometry, type GroupStatistics } from "./geometry.js";
import { makePlan } from "./make-plan.js";
import { checkOutput } from "./options.js";
import { readRecipe } from "./recipe.js";
import { slerpWeights } from "./slerp.js";

export interface MergeRecipeOptions extends Omit<RunOptions, "geometry"> {
  /** Path of the recipe. */
  readonly recipe: string;
  /** Overrides such as "parameters.eta=0.5". */
  readonly set?: readonly string[];
  /** What random methods draw from. @default 0 */
  readonly seed?: number;
  /** Whether `out` may be a model that is already there. @default false */
  readonly overwrite?: boolean;
  /** Whether the geometry of the task vectors is measured. @default false */
  readonly isMeasured?: boolean;
}

/** Merges, and gives the geometry of each layer's task vectors where it is measured and the recipe has a base. */
export async function mergeRecipe({
  recipe: path,
  set = [],
  seed = 0,
  overwrite = false,
  isMeasured = false,
  ...run
}: MergeRecipeOptions): Promise<GroupStatistics[]> {
  const recipe = await readRecipe(path, set);
  const { plan, config, sideFilesFrom, models } = await makePlan(recipe, { seed });
  await checkOutput(run.out, models, overwrite);
  let statistics: GroupStatistics[] = [];
  await mergeInto(plan, { ...run, geometry: isMeasured }, async (folder, stored) => {
    await copySideFiles(sideFilesFrom, folder);
    await writeFile(join(folder, "config.json"), config);
    if (isMeasured) {
      statistics = describeGeometry(plan, stored, "layer", (products) => slerpWeights(products).weights);
    }
  });
  return statistics;
}
