// A merge by a recipe: from the recipe's file to a model folder.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type JsonObject, readTextIfAny } from "../model/json.js";
import { copySideFiles, SIDE_FILES, TOKENIZER_FILES } from "../model/save.js";
import { mergeInto, type RunOptions, standardWorkers } from "./engine.js";
import { describeGeometry, type GroupStatistics } from "./geometry.js";
import { withKey } from "./json-text.js";
import { type MergePlan, makePlan } from "./make-plan.js";
import type { MethodName } from "./methods.js";
import { mergeCard, recipeAsRun } from "./model-card.js";
import { checkOutput } from "./options.js";
import { startThreads } from "./pool.js";
import { type Recipe, readRecipeFile } from "./recipe.js";
import { warmUp } from "./simd/sums.js";
import { slerpWeights } from "./slerp.js";
import type { TokenizerPlan } from "./tokenizer-plan.js";

export interface MergeRecipeOptions extends Omit<RunOptions, "geometry" | "threads"> {
  /** Path of the recipe. */
  readonly recipe: string;
  /** Overrides such as "parameters.eta=0.5". */
  readonly set?: readonly string[];
  /** What random methods draw from. @default 0 */
  readonly seed?: number;
  /** Whether `out` may be a model that is already there. @default false */
  readonly overwrite?: boolean;
  /** The folder of what a recipe calls a model (makePlan). */
  readonly findModel?: (name: string) => Promise<string>;
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
  findModel,
  ...run
}: MergeRecipeOptions): Promise<GroupStatistics[]> {
  const threads = startThreads((run.workers ?? standardWorkers()) - 1);
  try {
    warmUp();
    const { recipe, text } = await readRecipeFile(path, set, []);
    const made = await makePlan(recipe, { seed, findModel });
    const { plan, models } = made;
    await checkOutput(run.out, [...models, ...(made.tokenizer ? [made.tokenizer.from] : [])], overwrite);
    const files = await filesBeside(made, recipe, recipeAsRun(text, set, seed), run.out);
    let statistics: GroupStatistics[] = [];
    await mergeInto(plan, { ...run, threads, geometry: isMeasured }, async (folder, stored) => {
      await copySideFiles(made.sideFilesFrom, folder, made.tokenizer ? ["generation_config.json"] : SIDE_FILES);
      if (made.tokenizer) await copySideFiles(made.tokenizer.from, folder, TOKENIZER_FILES);
      for (const [name, content] of Object.entries(files)) await writeFile(join(folder, name), content);
      if (isMeasured) {
        statistics = describeGeometry(plan, stored, "layer", (products) => slerpWeights(products).weights);
      }
    });
    return statistics;
  } finally {
    await Promise.all(threads.map((thread) => thread.terminate()));
  }
}

/** Texts of files that no model has as they are: config, model card, and what a new vocabulary or chat template changes. */
async function filesBeside(
  { config, sideFilesFrom, tokenizer, models }: MergePlan,
  recipe: Recipe,
  text: string,
  out: string,
): Promise<Record<string, string>> {
  const files: Record<string, string> = { ...tokenizer?.files };
  const generation = await readTextIfAny(join(sideFilesFrom, "generation_config.json"));
  files["config.json"] = withIds(config, tokenizer);
  if (generation !== null && tokenizer !== null) files["generation_config.json"] = withIds(generation, tokenizer);
  if (recipe.chatTemplate !== null) {
    const from = tokenizer?.from ?? sideFilesFrom;
    const { chatTemplateFiles } = await import("./chat-template.js");
    Object.assign(files, await chatTemplateFiles(recipe.chatTemplate, models, from, files));
  }
  files["README.md"] = mergeCard(out, models, methodsOf(recipe), text);
  return files;
}

/** A config with the numbers that special tokens have in the new vocabulary. */
function withIds(text: string, tokenizer: TokenizerPlan | null): string {
  const ids = tokenizer === null ? {} : tokenizer.tokenIds(JSON.parse(text) as JsonObject);
  return Object.entries(ids).reduce((changed, [key, id]) => withKey(changed, key, id), text);
}

/** The methods of a recipe and of those within it, each once. */
function methodsOf({ method, base, slices }: Recipe): MethodName[] {
  const models = [...(base ? [base] : []), ...slices.flatMap(({ sources }) => sources.map(({ model }) => model))];
  const inner = models.flatMap((model) => (model.kind === "recipe" ? methodsOf(model.recipe) : []));
  return [...new Set([method, ...inner])];
}
