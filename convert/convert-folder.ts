// A model folder in another dtype or other shards: the merge of one model.
import { readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isDocument } from "../hub/files.js";
import { mergeInto } from "../merge/engine.js";
import { makePlan } from "../merge/make-plan.js";
import type { Recipe } from "../merge/recipe.js";
import type { Dtype } from "../model/json.js";
import { copySideFiles, SIDE_FILES, siblingFolder } from "../model/save.js";
import type { ConvertOptions } from "./convert.js";

interface ConvertFolderOptions extends Omit<ConvertOptions, "dtype" | "overwrite"> {
  /** null: each tensor stays what it is. */
  readonly dtype: Dtype | null;
}

/** Of models that see images, all of whose tensors are kept. */
const VISION_FILES = ["preprocessor_config.json", "processor_config.json", "chat_template.json"];

/** Floats are rounded once; tensors of other types stay as they are. Memory: parts of tensors. */
export async function convertFolder({ from, dtype, ...run }: ConvertFolderOptions): Promise<void> {
  const { plan, config } = await makePlan(aloneAs(from, dtype), { seed: 0 });
  try {
    await mergeInto(plan, run, async (folder) => {
      const documents = (await readdir(from)).filter(isDocument);
      await copySideFiles(from, folder, [...SIDE_FILES, ...VISION_FILES, ...documents]);
      await writeFile(join(folder, "config.json"), config);
    });
  } catch (error) {
    // A merge is kept to be resumed; this is quicker done again.
    if (run.signal?.aborted) await rm(siblingFolder(run.out, "partial"), { recursive: true, force: true });
    throw error;
  }
}

/** The recipe of one model as it is. */
function aloneAs(path: string, dtype: Dtype | null): Recipe {
  const model = { kind: "folder", path, adapter: null, text: path } as const;
  return {
    method: "passthrough",
    base: null,
    slices: [{ sources: [{ model, layerRange: null, parameters: {} }], parameters: {} }],
    isSliced: false,
    parameters: {},
    dtype,
    tokenizer: null,
    chatTemplate: null,
  };
}
