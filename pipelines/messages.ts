/** What parent and child say to each other. `serialization: "advanced"` carries typed arrays, Maps and NaN as they are. */
import { inspect } from "node:util";
import type { TaskEvent } from "./events.js";

export type ToChild =
  /** The first message: import the module at this URL, then run it once or open it as a host. */
  | { type: "start"; kind: "run" | "open"; url: string; params: unknown }
  | { type: "request"; id: number; message: unknown }
  | { type: "stop" };

export type FromChild =
  | { type: "event"; event: TaskEvent }
  /** The task's result; for a host: open, with no value. */
  | { type: "result"; value: unknown }
  | { type: "reply"; id: number; value: unknown }
  /** The task ended because it was asked to. */
  | { type: "stopped" }
  /** Without an id: the task itself failed. */
  | { type: "error"; id?: number; error: PlainError };

export interface PlainError {
  name: string;
  message: string;
  /** As util.inspect shows it: stack, causes and extra properties. */
  stack: string;
  code?: string;
}

export function toPlainError(thrown: unknown): PlainError {
  const error = thrown instanceof Error ? thrown : new Error(`threw a value that is no Error: ${inspect(thrown)}`);
  const code = "code" in error && typeof error.code === "string" ? error.code : undefined;
  return { name: error.name, message: error.message, stack: inspect(error), ...(code === undefined ? {} : { code }) };
}

/** The child's error as one that can be thrown here: same name, message and code, the child's stack. */
export function fromPlainError({ name, message, stack, code }: PlainError): Error {
  return Object.assign(new Error(message), { name, stack }, code === undefined ? {} : { code });
}
