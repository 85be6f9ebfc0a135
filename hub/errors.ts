/** What goes wrong between this machine and the hub. */

/** The hub refuses, or what it has cannot be used: trying again cannot help. */
export class HubError extends Error {
  override readonly name = "HubError";

  constructor(
    message: string,
    /** HTTP status, where the hub answered. */
    readonly status?: number,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** The hub cannot be reached, or has no time. Later it may. */
export class HubUnavailableError extends Error {
  override readonly name = "HubUnavailableError";
}
