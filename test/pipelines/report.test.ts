import { describe, expect, test } from "vitest";
import { renderReport } from "../../pipelines/report.js";
import { curvesOf } from "../../pipelines/report-curves.js";
import { placeLabels } from "../../pipelines/report-labels.js";
import { reportData } from "./report-data.js";

const nothing = { ...reportData, log: [], table: [], merges: [], samples: [] };
const headings = (html: string) => [...html.matchAll(/<h([23])>(.*?)<\/h\1>/g)].map((match) => match[2]);

describe("renderReport", () => {
  test("has a section for everything there is, charts included", async () => {
    const html = await renderReport(reportData);
    expect(headings(html)).toEqual([
      "Results",
      "Reward against KL",
      "Training",
      "Supervised fine-tuning",
      "Distillation",
      "Reinforcement learning",
      "Merging",
      "iteration-1",
      "iteration-2",
      "Samples of the final model",
      "Config",
    ]);
    // sft loss, distill loss and kl, rl loss, kl and reward; two planes; angles, norms and signs of two merges
    expect(html.match(/<svg/g)).toHaveLength(6 + 2 + 6);
    for (const { name } of reportData.table) expect(html).toMatch(new RegExp(`<text[^>]*>${name}</text>`));
    expect(html).toContain('<td class="number">0.444 ± 0.011</td><td class="number">0.98</td>');
  });

  test("loads nothing: no script, no link, no address but those of XML namespaces", async () => {
    const html = await renderReport(reportData);
    expect(html).not.toMatch(/<script|<link|<img|@import|url\(/);
    const addresses = new Set(html.match(/https?:\/\/[^"'\s]+/g));
    expect([...addresses].filter((address) => !address.startsWith("http://www.w3.org/"))).toEqual([]);
  });

  test("takes colours from the page, so that charts are readable on a dark screen", async () => {
    const html = await renderReport(reportData);
    const colors = [...html.matchAll(/ (?:fill|stroke)="([^"]*)"/g)].map((match) => match[1]!);
    expect([...new Set(colors)].filter((color) => !/^(var\(--[\w]+\)|none|transparent)$/.test(color))).toEqual([]);
  });

  test("escapes every text that comes from outside", async () => {
    const evil = `<script>alert("x")</script>&'`;
    const html = await renderReport({
      title: evil,
      config: `a: ${evil}`,
      log: [],
      reward: { model: evil, dtype: "float32" },
      table: [{ ...reportData.table[0]!, name: evil }],
      merges: [{ name: evil, statistics: [{ ...reportData.merges[0]!.statistics[0]!, group: evil }] }],
      samples: [{ prompt: evil, completion: evil, answer: evil, reward: 1 }],
    });
    expect(html).not.toContain("<script");
    expect(html).toContain("<h1>&#60;script&#62;alert(&#34;x&#34;)&#60;/script&#62;&#38;&#39;</h1>");
  });

  test("says of each sample whether it is right", async () => {
    const html = await renderReport(reportData);
    expect(html.match(/✓ right/g)).toHaveLength(7);
    expect(html.match(/✗ wrong/g)).toHaveLength(3);
  });

  test("of a reward model's scores it says whose they are, and no completion is right or wrong", async () => {
    const html = await renderReport({
      ...reportData,
      reward: { model: "runs/<judge>", dtype: "float32" },
      samples: [{ prompt: "1 * 7 =", completion: "7", answer: null, reward: -0.98765 }],
    });
    expect(html).toContain(
      "<p>On held-out prompts. Rewards: scores of the reward model runs/&#60;judge&#62;. Greedy reward: mean over greedy " +
        "completions. Reward: mean over sampled completions and its\nstandard error over prompts.",
    );
    expect(html).toContain('<th class="number">greedy reward</th><th class="number">reward</th>');
    expect(html).toContain('<td class="number">0.463</td>');
    expect(html).toContain('<td class="text">7</td><td class="text"></td>\n<td>-0.988</td>');
    expect(html).not.toMatch(/accuracy<|✓|✗|--share:\d/i);
  });

  test("a run without held-out prompts has no table, an empty one only its config", async () => {
    expect(headings(await renderReport({ ...reportData, table: [], samples: [] }))).not.toContain("Results");
    expect(headings(await renderReport(nothing))).toEqual(["Config"]);
  });

  test("one model, all measures equal, and a KL below zero are drawn", async () => {
    const row = { name: "final", greedy: 0, reward: 0, rewardSe: 0, kl: -0.01 };
    expect(await renderReport({ ...nothing, table: [row] })).not.toContain("NaN");
    expect(await renderReport({ ...nothing, table: [row, { ...row, kl: null }] })).not.toContain("NaN");
  });
});

describe("curvesOf", () => {
  test("iterations follow each other, runs are series", () => {
    const line = (iteration: number, run: number, step: number) => ({ phase: "rl", iteration, run, step, kl: step });
    const log = [line(1, 1, 1), line(1, 1, 2), line(1, 10, 1), line(1, 2, 1), line(2, 1, 1)];
    const [curve, ...others] = curvesOf(log);
    expect(others).toEqual([]);
    expect(curve!.series).toEqual(["run 1", "run 2", "run 10"]);
    expect(curve!.iterationStarts).toEqual([2]);
    expect(curve!.points.map(({ x, series, line: drawn }) => [x, series, drawn])).toEqual([
      [1, "run 1", "1/1"],
      [2, "run 1", "1/1"],
      [1, "run 10", "1/10"],
      [1, "run 2", "1/2"],
      [3, "run 1", "2/1"],
    ]);
  });

  test("phases and metrics come in the order of the recipe; null and other metrics are left out", () => {
    const log = [
      { phase: "rl", step: 1, reward: 1, loss: null, tokens_per_second: 7 },
      { phase: "distill", step: 1, kl: 2, loss: 1 },
    ];
    expect(curvesOf(log).map(({ phase, metric }) => `${phase} ${metric}`)).toEqual([
      "distill loss",
      "distill kl",
      "rl reward",
    ]);
  });

  test("the mean goes over a twentieth of a line, cut off at its ends", () => {
    const log = Array.from({ length: 40 }, (_, i) => ({ phase: "sft", step: i + 1, loss: i === 20 ? 3 : 0 }));
    const means = curvesOf(log)[0]!.points.map(({ mean }) => mean);
    expect(means.slice(18, 23)).toEqual([0, 1, 1, 1, 0]);
  });

  test("a long line is thinned out and keeps its end", () => {
    const log = Array.from({ length: 10_000 }, (_, i) => ({ phase: "sft", step: i + 1, loss: 1 }));
    const { points } = curvesOf(log)[0]!;
    expect(points.length).toBeLessThanOrEqual(401);
    expect(points.at(-1)!.x).toBe(10_000);
  });
});

describe("placeLabels", () => {
  const place = (...points: [number, number, string][]) =>
    placeLabels(
      points.map(([x, y, text]) => ({ x, y, text, reach: 0 })),
      200,
      100,
    ).map(({ x, y, align }) => [x, y, align]);

  test("to the right of the point, to the left at the right edge", () => {
    expect(place([50, 50, "run-1"])).toEqual([[60, 50, "left"]]);
    expect(place([190, 50, "run-1"])).toEqual([[180, 50, "right"]]);
  });

  test("two points side by side: one label to each side", () => {
    expect(place([90, 50, "run-1"], [105, 50, "run-2"])).toEqual([
      [80, 50, "right"],
      [115, 50, "left"],
    ]);
  });

  test("not on another point's bar", () => {
    const points = [
      { x: 50, y: 50, reach: 0, text: "run-1" },
      { x: 70, y: 90, reach: 60, text: "run-2" },
    ];
    expect(placeLabels(points, 200, 100)[0]).toMatchObject({ x: 40, align: "right" });
  });
});
