/** `heddle inspect`: the header of a checkpoint; no tensor is read. */
import { join } from "node:path";
import { Command } from "@commander-js/extra-typings";
import { checkpointPath } from "./flags.js";

export const inspectCommand = new Command("inspect")
  .description("print the header of a checkpoint: tensors, dtypes, shapes, sizes, metadata")
  .argument(
    "<path>",
    "model or adapter folder, .safetensors file, index of shards, or org/name[@revision]",
    checkpointPath,
  )
  .option("--json", "one JSON object instead of text", false)
  .action(async (path, { json }) => {
    const { fetchModel } = await import("./hub-models.js");
    const summary = await inspectCheckpoint(await fetchModel(path));
    process.stdout.write(json ? `${JSON.stringify(summary)}\n` : summaryText(summary));
  });

export interface CheckpointSummary {
  readonly path: string;
  readonly files: readonly string[];
  readonly metadata: Readonly<Record<string, string>>;
  /** Elements of all tensors. */
  readonly parameters: number;
  /** Bytes of all tensors, without headers. */
  readonly bytes: number;
  /** By name; numbers in names in the order of their value. */
  readonly tensors: readonly {
    readonly name: string;
    readonly dtype: string;
    readonly shape: readonly number[];
    readonly bytes: number;
    readonly file: string;
  }[];
}

export async function inspectCheckpoint(path: string): Promise<CheckpointSummary> {
  const [{ openCheckpoint }, { isAdapterAlone }, { ADAPTER_NAME }] = await Promise.all([
    import("safetensors-ts"),
    import("../model/lora.js"),
    import("../model/adapter-config.js"),
  ]);
  const checkpoint = await openCheckpoint((await isAdapterAlone(path)) ? join(path, ADAPTER_NAME) : path);
  await checkpoint.close();
  const { files, metadata } = checkpoint;
  const tensors = checkpoint.tensors.map(({ name, dtype, shape, begin, end, file }) => {
    return { name, dtype, shape, bytes: end - begin, file };
  });
  const byName = new Intl.Collator("en", { numeric: true });
  tensors.sort((a, b) => byName.compare(a.name, b.name));
  const total = (values: number[]) => values.reduce((sum, value) => sum + value, 0);
  const parameters = total(tensors.map(({ shape }) => shape.reduce((product, size) => product * size, 1)));
  return { path, files, metadata, parameters, bytes: total(tensors.map(({ bytes }) => bytes)), tensors };
}

function summaryText({ path, files, metadata, parameters, bytes, tensors }: CheckpointSummary): string {
  const count = (n: number, word: string) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
  const counts = [count(files.length, "file"), count(tensors.length, "tensor"), count(parameters, "parameter")];
  const lines = [`${path}: ${counts.join(", ")}, ${sizeText(bytes)}`];
  for (const [key, value] of Object.entries(metadata)) lines.push(`${printable(key)}: ${printable(value)}`);
  const rows = tensors.map(({ name, dtype, shape, bytes, file }) => {
    const row = [printable(name), dtype, `[${shape.join(", ")}]`, sizeText(bytes)];
    return files.length > 1 ? [...row, file] : row;
  });
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  if (rows.length > 0) lines.push("");
  for (const row of rows)
    lines.push(
      row
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join("  ")
        .trimEnd(),
    );
  return `${lines.join("\n")}\n`;
}

/** A file from elsewhere may hold any character in its names: none of them may steer the terminal. */
const printable = (text: string) => text.replace(/\p{C}/gu, (character) => JSON.stringify(character).slice(1, -1));

function sizeText(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  const power = Math.min(4, Math.floor(Math.log10(bytes) / 3));
  return `${(bytes / 1000 ** power).toPrecision(3)} ${["", "kB", "MB", "GB", "TB"][power]}`;
}
