// The one error of the package.

/** A file, folder or tensor that breaks the safetensors format. Trying again cannot help. */
export class SafetensorsError extends Error {
  override readonly name = "SafetensorsError";

  /** `path`: the file or folder, where there is one. `tensor`: the tensor at fault, where there is one. */
  constructor(
    readonly path: string | undefined,
    problem: string,
    readonly tensor?: string,
    options?: ErrorOptions,
  ) {
    super(path === undefined ? problem : `${path}: ${problem}`, options);
  }
}
