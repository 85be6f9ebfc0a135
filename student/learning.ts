/** Which tensors of a model learn. Imports no TensorFlow, so that plans need none. */
import { ModelError } from "../model/errors.js";
import { isLoraMatrix, type LoraSettings, savedWeights } from "../model/lora.js";

/** Names as in the config. */
export type LearningOptions = {
  /** Regular expressions; what learns are the parameters whose names match one of them. @default null: all */
  readonly trainable?: readonly string[] | null;
  /** An adapter: it learns, and what it stores whole. @default null: none */
  readonly lora?: LoraSettings | null;
};

/**
 * Which tensors learn, by name.
 * @throws ModelError if a pattern matches none
 */
export function learning(
  { trainable: patterns = null, lora = null }: LearningOptions,
  names: readonly string[],
): (name: string) => boolean {
  if (lora !== null) {
    const saved = new Set(savedWeights(names, lora));
    return (name) => isLoraMatrix(name) || saved.has(name);
  }
  if (patterns === null) return () => true;
  const expressions = patterns.map((pattern) => new RegExp(pattern));
  const unused = expressions.find((expression) => !names.some((name) => expression.test(name)));
  if (unused !== undefined) {
    const some = names.length > 3 ? `${names.slice(0, 2).join(", ")}, ..., ${names.at(-1)}` : names.join(", ");
    throw new ModelError("trainable", `no tensor's name matches ${unused.source}; the names are ${some}`);
  }
  return (name) => expressions.some((expression) => expression.test(name));
}
