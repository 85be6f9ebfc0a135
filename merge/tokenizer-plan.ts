// The vocabulary of a merged model: which token gets which row, made of which rows of the models, and the files of the tokenizer.
import type { JsonObject } from "../model/json.js";
import type { TensorPlace } from "./plan.js";
import type { TokenizerSettings } from "./recipe.js";
import type { VocabularyRows } from "./tokenizer-rows.js";

/** A model of the recipe, as far as its vocabulary is concerned. */
export interface TokenizerModel {
  /** How the recipe calls it. */
  readonly name: string;
  /** Folder that holds its tokenizer.json. */
  readonly path: string;
  /** Rows of its embedding. */
  readonly rows: number;
}

export interface TokenizerPlan {
  /** Rows by token. */
  readonly vocabulary: ReadonlyMap<string, number>;
  /** Rows of the result's embedding and head, padding included: `vocab_size` of its config. */
  readonly vocabSize: number;
  /** Folder whose tokenizer files the result has, but for those in `files`. */
  readonly from: string;
  /** Texts of files that differ from those in `from`, by name. */
  readonly files: Readonly<Record<string, string>>;
  /** What bos_token_id and so on become in a config.json or generation_config.json of the base; only those that change. */
  tokenIds(config: JsonObject): Readonly<Record<string, number | number[] | null>>;
  /**
   * The embedding (or head) of one model with the rows of the result. `places` are those of the models, in their order;
   * null where a model takes no part in this tensor.
   */
  rows(model: number, places: readonly (TensorPlace | null)[]): VocabularyRows;
}

/**
 * Plans the vocabulary as mergekit does. The models include the base; `base` is its index, null where there is none.
 * @throws ModelError that names file and token
 */
export async function planTokenizer(
  settings: TokenizerSettings,
  models: readonly TokenizerModel[],
  base: number | null,
): Promise<TokenizerPlan> {
  throw new Error(`not yet: ${settings.source} ${models.length} ${base}`);
}
