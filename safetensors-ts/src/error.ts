// The one error of the package.

/** `offset`: the byte of the file, from 0, where there is one at fault; `cause`: the error behind this one. */
export interface ProblemOptions extends ErrorOptions {
  readonly offset?: number;
}

/** A file, folder or tensor that breaks the safetensors format. Trying again cannot help. */
export class SafetensorsError extends Error {
  override readonly name = "SafetensorsError";
  /** The byte of the file, from 0, at which reading stopped; undefined where no single byte is at fault. */
  readonly offset: number | undefined;

  /** `path`: the file or folder, where there is one. `tensor`: the name of the tensor at fault, where there is one. */
  constructor(
    readonly path: string | undefined,
    problem: string,
    readonly tensor?: string,
    options?: ProblemOptions,
  ) {
    super(path === undefined ? problem : `${path}: ${problem}`, options);
    this.offset = options?.offset;
  }
}
