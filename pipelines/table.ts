/** Tables on a terminal; the one at the end of `heddle warp` has one line a model. */
import type { ResultRow } from "./results.js";

const HEAD = ["model", "accuracy", "reward", "KL to distilled"];

export const formatTable = (rows: readonly ResultRow[]): string =>
  alignColumns([HEAD, ...rows.map((row) => [row.name, percent(row.accuracy), rewardText(row), klText(row)])]);

/** Aligned columns: names to the left, numbers to the right, no line ends in spaces. Ends with a newline. */
export function alignColumns(lines: readonly (readonly string[])[]): string {
  const widths = lines[0]!.map((_, column) => Math.max(...lines.map((cells) => cells[column]!.length)));
  const text = lines.map((cells) =>
    cells.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!))).join("   "),
  );
  return `${text.join("\n")}\n`;
}

export const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

/** Mean and standard error. */
export const rewardText = ({ reward, rewardSe }: ResultRow): string => `${reward.toFixed(3)} ± ${rewardSe.toFixed(3)}`;

/** Nats a completion; "-" for the distilled model itself. */
export const klText = ({ kl }: ResultRow): string => kl?.toFixed(2) ?? "-";
