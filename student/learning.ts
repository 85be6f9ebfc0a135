/** Which tensors of a model learn. Imports no TensorFlow, so that plans need none. */
import { ModelError } from "../model/errors.js";

/**
 * Which tensors learn, by name.
 * @throws ModelError if a pattern matches none
 */
export function learning(patterns: readonly string[] | null, names: readonly string[]): (name: string) => boolean {
  if (patterns === null) return () => true;
  const expressions = patterns.map((pattern) => new RegExp(pattern));
  const unused = expressions.find((expression) => !names.some((name) => expression.test(name)));
  if (unused !== undefined) {
    const some = names.length > 3 ? `${names.slice(0, 2).join(", ")}, ..., ${names.at(-1)}` : names.join(", ");
    throw new ModelError("trainable", `no tensor's name matches ${unused.source}; the names are ${some}`);
  }
  return (name) => expressions.some((expression) => expression.test(name));
}
