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
