// The vocabulary of a merged model: which token gets which row, made of which rows of the models, and the files of the tokenizer.
import { join } from "node:path";
import { ModelError } from "../model/errors.js";
import { type JsonObject, readJsonIfAny } from "../model/json.js";
import type { TensorPlace } from "./plan.js";
import type { TokenizerSettings } from "./recipe.js";
import { readTokenizerFile, type TokenizerFile } from "./tokenizer-file.js";
import { addTokens, changedFiles, type NewToken, plainToken } from "./tokenizer-files.js";
import {
  endOf,
  type ModelVocabulary,
  sourceRow,
  type TokenizerModel,
  type VocabularyRows,
  vocabularyRows,
} from "./tokenizer-rows.js";

export type { TokenizerModel, VocabularyRows } from "./tokenizer-rows.js";

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
 * Plans the vocabulary as mergekit does. The models include the base; `base` is its index, null where there is none: the
 * first model's tokenizer is then the base's, and its rows count no more than others'.
 * @throws ModelError that names file and token
 */
export async function planTokenizer(
  settings: TokenizerSettings,
  models: readonly TokenizerModel[],
  base: number | null,
): Promise<TokenizerPlan> {
  const opened: Opened[] = [];
  for (const model of models) opened.push(openModel(model, await readTokenizerFile(model.path)));
  const home = opened[base ?? 0]!;
  checkTokens(settings, opened);
  const isUnion = settings.source === "union";
  const source = isUnion || settings.source === "base" ? home : await openSource(settings.source, opened);
  if (isUnion) for (const model of opened) checkType(home, model);
  if (source.rows !== null) checkRows(source.tokenizer, source.rows);

  const named = Object.keys(settings.tokens).filter((token) => !source.tokenizer.vocabulary.has(token));
  const added = addTokens(source.tokenizer, [...(isUnion ? union(home, opened) : []), ...named.map(plainToken)]);
  const vocabulary = new Map([
    ...source.tokenizer.vocabulary,
    ...added.map(({ content, id }) => [content, id] as const),
  ]);
  const end = endOf(vocabulary);
  const multiple = settings.padToMultipleOf ?? 1;
  const vocabSize = Math.ceil(end / multiple) * multiple;
  const work = { vocabulary, vocabSize, models: opened, base, tokens: settings.tokens };
  const special = await specialTokens(source.path);
  return {
    vocabulary,
    vocabSize,
    from: source.path,
    files: await changedFiles(source.path, source.tokenizer, added),
    tokenIds: (config) => (source === home ? {} : movedIds(config, home.tokenizer.vocabulary, vocabulary, special)),
    rows: (model, places) => vocabularyRows(work, model, places),
  };
}

interface Opened extends ModelVocabulary {
  readonly tokenizer: TokenizerFile;
}

function openModel(model: TokenizerModel, tokenizer: TokenizerFile): Opened {
  const ids = new Map([...tokenizer.vocabulary].filter(([, id]) => id < model.rows));
  return { ...model, tokenizer, ids };
}

/** The tokenizer of a folder; the folder may be a model of the recipe. */
async function openSource(path: string, models: readonly Opened[]) {
  const model = models.find((model) => model.name === path || model.path === path);
  return model ?? { path, rows: null, tokenizer: await readTokenizerFile(path) };
}

/** A tokenizer that the result takes over must not have tokens without a row. */
function checkRows({ path, vocabulary }: TokenizerFile, rows: number): void {
  for (const [token, id] of vocabulary) {
    if (id < rows) continue;
    throw new ModelError(
      path,
      `token ${JSON.stringify(token)} has id ${id}, expected less than ${rows}, the rows of the embedding`,
    );
  }
}

/** Tokens of different kinds of models are spelled differently, and added ones would match nothing. */
function checkType({ tokenizer: home }: Opened, { tokenizer }: Opened): void {
  if (tokenizer.type === home.type) return;
  const problem = `is a tokenizer of type ${tokenizer.type}, expected ${home.type} as ${home.path}: their vocabularies have no union`;
  throw new ModelError(tokenizer.path, problem);
}

/** Settings of tokens must name models of the recipe that have the token, and a new token must come from somewhere. */
function checkTokens({ tokens }: TokenizerSettings, models: readonly Opened[]): void {
  for (const [token, { source }] of Object.entries(tokens)) {
    if (source === null && !models.some(({ ids }) => ids.has(token))) {
      const problem = `has no token ${JSON.stringify(token)}, nor has any other model; expected a source for it`;
      throw new ModelError(models[0]!.tokenizer.path, problem);
    }
    if (source === null || source.kind === "zero") continue;
    const model = models.find(({ name }) => name === source.model);
    if (!model) {
      const names = models.map(({ name }) => name).join(", ");
      throw new ModelError(
        source.model,
        `source of token ${JSON.stringify(token)}, expected a model of the recipe: ${names}`,
      );
    }
    sourceRow(model, token, source);
  }
}

/** Tokens to add to the base's: those that other models' vocabularies have, then those that they have added. */
function union(home: Opened, models: readonly Opened[]): NewToken[] {
  const ordered = [home, ...models.filter((model) => model !== home)];
  const added = ordered.flatMap(({ ids, tokenizer }) => tokenizer.added.filter(({ content }) => ids.has(content)));
  const isAdded = new Set(added.map(({ content }) => content));
  const plain = ordered.flatMap(({ ids }) => [...ids.keys()]);
  return [...new Set(plain.filter((token) => !isAdded.has(token) && !home.ids.has(token)))]
    .map(plainToken)
    .concat(added.map(({ id: _, ...token }) => token as NewToken));
}

/** Special tokens of tokenizer_config.json by the key of their id in a config: bos_token_id and so on. */
async function specialTokens(dir: string): Promise<ReadonlyMap<string, string>> {
  const config = (await readJsonIfAny(join(dir, "tokenizer_config.json"))) ?? {};
  const tokens = new Map<string, string>();
  for (const [key, value] of Object.entries(config)) {
    const content = typeof value === "object" && value !== null ? (value as JsonObject).content : value;
    if (/_token$/.test(key) && typeof content === "string") tokens.set(`${key}_id`, content);
  }
  return tokens;
}

/** Ids of a config of the base: of the same tokens where the result has them, else of its own special tokens. */
function movedIds(
  config: JsonObject,
  from: ReadonlyMap<string, number>,
  to: ReadonlyMap<string, number>,
  special: ReadonlyMap<string, string>,
): Record<string, number | number[] | null> {
  const tokenOf = new Map([...from].map(([token, id]) => [id, token]));
  const moved: Record<string, number | number[] | null> = {};
  for (const [key, value] of Object.entries(config)) {
    if (!/_token_id$/.test(key) || value === null) continue;
    const ids = [value].flat() as number[];
    const kept = ids.map((id) => to.get(tokenOf.get(id) ?? "")).filter((id) => id !== undefined);
    const own = to.get(special.get(key) ?? "");
    const now = kept.length > 0 ? kept : own === undefined ? [] : [own];
    if (`${now}` !== `${ids}`) moved[key] = Array.isArray(value) && now.length > 0 ? now : (now[0] ?? null);
  }
  return moved;
}
