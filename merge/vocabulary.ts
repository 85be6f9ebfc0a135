// The models of a recipe with the rows of one vocabulary, where the recipe has a tokenizer.
import { ModelError } from "../model/errors.js";
import { layerOf } from "./groups.js";
import { hasVocabulary, type ModelTensor, type ModelTensors } from "./model-tensors.js";
import type { TensorPlace } from "./plan.js";
import type { ModelReference, TokenizerSettings } from "./recipe.js";
import { planTokenizer, type TokenizerPlan } from "./tokenizer-plan.js";

/** The models, their embeddings and heads with a row for each token of the result, and how the vocabulary came about. */
export async function withVocabulary(
  settings: TokenizerSettings,
  models: readonly ModelTensors[],
  references: readonly ModelReference[],
  base: number | null,
): Promise<{ models: ModelTensors[]; tokenizer: TokenizerPlan }> {
  if (typeof models[0]!.config.vocab_size !== "number") {
    throw new ModelError(models[0]!.path, "config.json has no vocab_size at its top, expected one with a tokenizer");
  }
  const vocabularies = models.map((model, i) => {
    const embedding = [...model.tensors.values()].find(({ name }) => hasVocabulary(name));
    if (!embedding)
      throw new ModelError(model.path, "has no embedding of tokens, which a recipe with a tokenizer needs");
    checkOthers(model, embedding.shape[0]!);
    return { name: references[i]!.text, path: model.path, rows: embedding.shape[0]! };
  });
  const tokenizer = await planTokenizer(settings, vocabularies, base);
  const changed = models.map((model, m): ModelTensors => {
    const tensors = [...model.tensors].map(([name, tensor]): [string, ModelTensor] => {
      if (!hasVocabulary(name)) return [name, tensor];
      const source = tokenizer.rows(
        m,
        models.map((other) => placeIn(other, name)),
      );
      return [name, { ...tensor, shape: [tokenizer.vocabSize, ...tensor.shape.slice(1)], source }];
    });
    return { ...model, tensors: new Map(tensors) };
  });
  return { models: changed, tokenizer };
}

/** Throws for a tensor that goes by its name and size with the vocabulary, and whose rows would be left where they were. */
function checkOthers({ path, tensors }: ModelTensors, rows: number): void {
  for (const { name, shape } of tensors.values()) {
    if (hasVocabulary(name) || layerOf(name) || shape[0] !== rows || !/emb|wte|head/.test(name)) continue;
    if (/position/.test(name)) continue;
    const problem = `tensor "${name}" of shape [${shape}] has a row for each token, too: with a tokenizer only embed_tokens, wte and lm_head.weight may`;
    throw new ModelError(path, problem);
  }
}

function placeIn({ path, tensors }: ModelTensors, name: string): TensorPlace | null {
  const source = tensors.get(name)?.source;
  if (source === undefined) return null;
  if (source.kind === "tensor") return source.place;
  const problem = `"${name}" is computed, by an adapter or a recipe: with a tokenizer it must be a tensor of a folder`;
  throw new ModelError(path, problem);
}
