/** What ends a stage of training for good. */

/** Training that cannot go on: what was saved last is whole. */
export class TrainingError extends Error {
  override readonly name = "TrainingError";
}
