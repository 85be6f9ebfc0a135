import { expect, test } from "vitest";
import { formatTable } from "../../pipelines/table.js";

test("the table is aligned; the distilled model has no KL to itself", () => {
  const rows = [
    { name: "teacher", greedy: 0.545, reward: 0.51234, rewardSe: 0.0106, kl: 14.204 },
    { name: "distilled", greedy: 0.05, reward: -0.25, rewardSe: 0, kl: null },
    { name: "iteration-1/run-2", greedy: 1, reward: 12, rewardSe: 1.5, kl: -0.004 },
  ];
  expect(formatTable(rows, "exact_match")).toBe(
    [
      "model               accuracy           reward   KL to distilled",
      "teacher               54.5 %    0.512 ± 0.011             14.20",
      "distilled              5.0 %   -0.250 ± 0.000                 -",
      "iteration-1/run-2    100.0 %   12.000 ± 1.500             -0.00",
      "",
    ].join("\n"),
  );
});

test("with a reward model the rewards of greedy completions are what they are, no shares", () => {
  const rows = [{ name: "final", greedy: -1.25, reward: 0.5, rewardSe: 0.25, kl: 1 }];
  expect(formatTable(rows, { model: "judge", dtype: "float32" })).toBe(
    "model   greedy reward          reward   KL to distilled\n" +
      "final          -1.250   0.500 ± 0.250              1.00\n",
  );
});
