/** Suggestions for a key that does not exist. */

/** What other tools call things that have another name here: TRL and the trainers of transformers. */
const otherNames: Record<string, string> = {
  model_name_or_path: "model",
  teacher_model_name_or_path: "teacher",
  teacher_model_server_url: "teacher",
  dataset_name: "train_data",
  max_steps: "steps",
  per_device_train_batch_size: "batch_size",
  max_completion_length: "max_new_tokens",
  num_generations: "samples",
  save_steps: "save_every",
  lr: "learning_rate",
};

/** The known name that was probably meant, or undefined. Names are compared by edits; a third of the word may differ. */
export function nearest(word: string, names: readonly string[]): string | undefined {
  const other = otherNames[word];
  if (other !== undefined && names.includes(other)) return other;
  const [best] = names
    .map((name) => ({ name, edits: editDistance(word.toLowerCase(), name) }))
    .filter(({ name, edits }) => edits <= Math.max(word.length, name.length) / 3)
    .sort((a, b) => a.edits - b.edits);
  return best?.name;
}

/** Characters to insert, delete or replace to make `a` into `b` (Levenshtein). */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
