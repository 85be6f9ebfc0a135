// Rows of embeddings by token: those of a model in the order of another vocabulary.
import type { RowsSource } from "./plan.js";

/** Rows by token; `meanFrom` and every row after it is the mean of all rows before it (none where it is the number of rows). */
export interface VocabularyRows extends RowsSource {
  readonly meanFrom: number;
}
