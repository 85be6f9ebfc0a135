/** The error of this folder: something in a model folder is missing, broken or not supported. Trying again cannot help. */

export class ModelError extends Error {
  override readonly name = "ModelError";

  /** The message reads `path: problem`. */
  constructor(
    readonly path: string,
    problem: string,
    options?: ErrorOptions,
  ) {
    super(`${path}: ${problem}`, options);
  }
}

/**
 * The numbers that the model in `dir` computed; `what` says what they are, and of which row.
 * @throws ModelError where one is NaN or infinite: nothing can be learned from it, and JSON would make it null
 */
export function finite(dir: string, what: string, values: Iterable<number>): number[] {
  const numbers = [...values];
  const wrong = numbers.find((value) => !Number.isFinite(value));
  if (wrong === undefined) return numbers;
  throw new ModelError(
    dir,
    `${what} is ${wrong}, expected a finite number: the model's activations overflow; set dtype float32, or take another model`,
  );
}
