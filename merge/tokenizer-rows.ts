// Rows of embeddings by token: the embedding of a model in the order of another vocabulary.
import { ModelError } from "../model/errors.js";
import type { RowsSource, TensorPlace } from "./plan.js";
import type { TokenSettings } from "./recipe.js";

/**
 * `meanFrom` and every row after it is the mean of all rows before it, in this model's new order: padding, whose logits
 * are then no greater than those of tokens. None where it is the number of rows.
 */
export interface VocabularyRows extends RowsSource {
  readonly meanFrom: number;
}

/** A model of the recipe, as far as its vocabulary is concerned. */
export interface TokenizerModel {
  /** How the recipe calls it. */
  readonly name: string;
  /** Folder that holds its tokenizer.json. */
  readonly path: string;
  /** Rows of its embedding. */
  readonly rows: number;
}

/** A model with the rows of its tokens; tokens beyond its embedding are none of them. */
export interface ModelVocabulary extends TokenizerModel {
  readonly ids: ReadonlyMap<string, number>;
}

export interface RowsWork {
  readonly vocabulary: ReadonlyMap<string, number>;
  readonly vocabSize: number;
  readonly models: readonly ModelVocabulary[];
  /** Index of the base, null where there is none. */
  readonly base: number | null;
  readonly tokens: Readonly<Record<string, TokenSettings>>;
}

/** Row `row` of the tensor of model number `model`. */
interface Pick {
  readonly model: number;
  readonly row: number;
}

/**
 * The rows of model number `own`. A token that it has is its row there. One that it has not, or whose setting is forced, is
 * what the setting says; without one the base's row, else the mean over the models that have it, else zeros.
 */
export function vocabularyRows(work: RowsWork, own: number, places: readonly (TensorPlace | null)[]): VocabularyRows {
  const { vocabulary, vocabSize, models } = work;
  checkPlaces(models, own, places);
  const parts = models.map((_, i) => i).filter((i) => places[i]);
  const byRow: (readonly Pick[])[] = Array.from({ length: vocabSize }, () => []);
  for (const [token, id] of vocabulary) {
    const row = models[own]!.ids.get(token);
    const setting = Object.hasOwn(work.tokens, token) ? work.tokens[token]! : null;
    byRow[id] = row !== undefined && !setting?.force ? [{ model: own, row }] : defaultRow(work, token, setting, parts);
  }
  const picks = new Int32Array(vocabSize + 1);
  for (const [r, chosen] of byRow.entries()) picks[r + 1] = picks[r]! + chosen.length;
  const chosen = byRow.flat();
  return {
    kind: "rows",
    places: parts.map((i) => places[i]!),
    picks,
    tensors: Int32Array.from(chosen, ({ model }) => parts.indexOf(model)),
    rows: Int32Array.from(chosen, ({ row }) => row),
    meanFrom: endOf(vocabulary),
  };
}

/** One more than the greatest id. */
export const endOf = (vocabulary: ReadonlyMap<string, number>): number => {
  let end = 0;
  for (const id of vocabulary.values()) end = Math.max(end, id + 1);
  return end;
};

/** `parts`: the models that have the tensor. */
function defaultRow(
  { models, base }: RowsWork,
  token: string,
  setting: TokenSettings | null,
  parts: readonly number[],
): readonly Pick[] {
  const source = setting?.source ?? null;
  if (source === null) {
    const owners = parts.flatMap((model): Pick[] => {
      const row = models[model]!.ids.get(token);
      return row === undefined ? [] : [{ model, row }];
    });
    const ofBase = owners.filter(({ model }) => model === base);
    return ofBase.length > 0 ? ofBase : owners;
  }
  if (source.kind === "zero") return [];
  const model = models.findIndex(({ name }) => name === source.model);
  if (!parts.includes(model)) {
    const problem = `takes no part in this tensor, from which token ${JSON.stringify(token)} should get its row`;
    throw new ModelError(models[model]!.path, problem);
  }
  return [{ model, row: sourceRow(models[model]!, token, source) }];
}

/** The row that a setting names. Throws a ModelError where the model has no such token or row. */
export function sourceRow(
  model: ModelVocabulary,
  token: string,
  source: Exclude<NonNullable<TokenSettings["source"]>, { kind: "zero" }>,
): number {
  if (source.kind === "model_token" && source.tokenId !== null) {
    if (source.tokenId >= 0 && source.tokenId < model.rows) return source.tokenId;
    const problem = `has no row ${source.tokenId} for token ${JSON.stringify(token)}, expected 0 to ${model.rows - 1}`;
    throw new ModelError(model.path, problem);
  }
  const wanted = (source.kind === "model_token" ? source.token : null) ?? token;
  const row = model.ids.get(wanted);
  if (row !== undefined) return row;
  const use = wanted === token ? "" : `, which token ${JSON.stringify(token)} should be like`;
  throw new ModelError(`${model.path}/tokenizer.json`, `has no token ${JSON.stringify(wanted)}${use}`);
}

function checkPlaces(models: readonly ModelVocabulary[], own: number, places: readonly (TensorPlace | null)[]): void {
  const first = places[own];
  if (!first || places.length !== models.length) {
    throw new RangeError(
      `${places.length} places for ${models.length} models, expected one each and that of model ${own}`,
    );
  }
  for (const [i, { path, rows }] of models.entries()) {
    const shape = places[i]?.shape;
    if (!shape || (shape.length === 2 && shape[0] === rows && shape[1] === first.shape[1])) continue;
    throw new ModelError(path, `an embedding or head has shape [${shape}], expected [${rows},${first.shape[1]}]`);
  }
}
