// The one kind of error that set-up reports to a person.

/** A reason why TensorFlow cannot be set up here, in one line that says what to do about it. */
export class SetupError extends Error {
  override readonly name = "SetupError";
}
