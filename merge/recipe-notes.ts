// What all checks of a recipe share: noting mistakes, and keys that are not known.
import { nearest } from "../config/did-you-mean.js";
import type { KeyPath } from "../config/yaml-source.js";
import type { MethodName } from "./methods.js";
import type { Recipe } from "./recipe.js";

export type Mapping = Readonly<Record<string, unknown>>;

export const isMapping = (value: unknown): value is Mapping =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Notes what is wrong with the value at a path of the recipe that is checked. */
export type Note = (path: KeyPath, problem: string) => void;

/** A recipe that is being checked. */
export interface Check {
  /** Null where it is not known: what depends on it is not checked then. */
  readonly method: MethodName | null;
  readonly note: Note;
  /** Checks a recipe that stands within this one. */
  checkInner(value: Mapping, path: KeyPath): Promise<Recipe | null>;
  /** Reads a recipe from its file. */
  readRecipe(path: string): Promise<Recipe>;
}

/** Notes keys that are not known. */
export function checkKeys(value: Mapping, known: readonly string[], note: Note, at: KeyPath = []): void {
  for (const key of Object.keys(value)) {
    if (known.includes(key)) continue;
    const near = nearest(key, known);
    const hint = near === undefined ? `expected one of ${known.join(", ")}` : `did you mean ${near}?`;
    note([...at, key], `unknown key; ${hint}`);
  }
}
