/** Tables on a terminal; the one at the end of `heddle warp` has one line a model. */
import type { RewardSetting } from "../distill/reward-model.js";
import type { ResultRow } from "./results.js";

export const formatTable = (rows: readonly ResultRow[], reward: RewardSetting): string =>
  alignColumns([
    ["model", greedyHead(reward), "reward", "KL to distilled"],
    ...rows.map((row) => [row.name, greedyText(row, reward), rewardText(row), klText(row)]),
  ]);

/** Aligned columns: names to the left, numbers to the right, no line ends in spaces. Ends with a newline. */
export function alignColumns(lines: readonly (readonly string[])[]): string {
  const widths = lines[0]!.map((_, column) => Math.max(...lines.map((cells) => cells[column]!.length)));
  const text = lines.map((cells) =>
    cells.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!))).join("   "),
  );
  return `${text.join("\n")}\n`;
}

/** What the mean reward of greedy completions is called. */
export const greedyHead = (reward: RewardSetting): string => (reward === "exact_match" ? "accuracy" : "greedy reward");

export const greedyText = ({ greedy }: ResultRow, reward: RewardSetting): string =>
  reward === "exact_match" ? `${(100 * greedy).toFixed(1)} %` : greedy.toFixed(3);

/** Mean and standard error. */
export const rewardText = ({ reward, rewardSe }: ResultRow): string => `${reward.toFixed(3)} ± ${rewardSe.toFixed(3)}`;

/** Nats a completion; "-" for the distilled model itself. */
export const klText = ({ kl }: ResultRow): string => kl?.toFixed(2) ?? "-";
