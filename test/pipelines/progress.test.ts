import { describe, expect, test } from "vitest";
import { plainDisplay, showOn } from "../../pipelines/progress.js";
import {
  afterStep,
  beginStage,
  describeEnd,
  describeMetrics,
  describeStep,
  formatNumber,
  formatSeconds,
  secondsLeft,
} from "../../pipelines/progress-text.js";

describe("progress in words", () => {
  test("times", () => {
    expect([0.4, 59.4, 59.6, 80, 3599, 3600, 3900].map(formatSeconds)).toEqual([
      "0s",
      "59s",
      "1m 00s",
      "1m 20s",
      "59m 59s",
      "1h 00m",
      "1h 05m",
    ]);
  });

  test("numbers have four significant digits", () => {
    expect([0.123456, 12345.6, 0, -0.5, 0.00001234567, Number.NaN].map(formatNumber)).toEqual([
      "0.1235",
      "12350",
      "0",
      "-0.5",
      "1.235e-5",
      "NaN",
    ]);
  });

  test("the time left follows the last steps, and leaves out the first, which compiles", () => {
    let progress = beginStage("distill", 100, 0, 0);
    progress = afterStep(progress, 1, {}, 60_000);
    expect(secondsLeft(progress)).toBeUndefined();
    progress = afterStep(progress, 2, {}, 62_000);
    progress = afterStep(progress, 3, {}, 64_000);
    expect(secondsLeft(progress)).toBe(2 * 97);
    // 20 steps later only the last 20 count: 1 s each.
    for (let step = 4; step <= 23; step++) progress = afterStep(progress, step, {}, 64_000 + 1000 * (step - 3));
    expect(secondsLeft(progress)).toBe(77);
  });

  test("a step, its metrics and the end of a stage that was resumed", () => {
    const metrics = { step_seconds: 2, tokens_per_second: 1203.4, reward: 0.75, kl: 0.01, loss: 0.5 };
    let progress = afterStep(beginStage("rl", 50, 10, 0), 11, metrics, 5000);
    expect(describeMetrics(progress)).toBe("loss 0.5, kl 0.01, reward 0.75, 1,203 tokens/s");
    expect(describeStep(afterStep(beginStage("sft", 2, 0, 0), 1, {}, 5000), 6000)).toBe("sft: step 1 of 2 (6s)");
    progress = afterStep(progress, 50, { loss: 0.25 }, 83_000);
    expect(describeEnd(progress, 83_000)).toBe("rl: 40 steps done in 1m 23s, loss 0.25");
  });
});

describe("plain progress", () => {
  test("shows begin and end of each stage, a step every 2 s, and every note", () => {
    let nowMs = 0;
    let text = "";
    const now = () => nowMs;
    const write = (more: string) => {
      text += more;
    };
    const { onEvent } = showOn(plainDisplay(write, 2000, now), now);
    onEvent({ type: "stage", stage: "sft", steps: 9, done: 9 });
    onEvent({ type: "stage", stage: "distill", steps: 6, done: 0 });
    onEvent({ type: "compile", what: "the training step", seconds: 2.345 });
    for (let step = 1; step <= 6; step++) {
      nowMs += 1500;
      onEvent({ type: "step", stage: "distill", step, metrics: { loss: 1 / step } });
      if (step === 3) onEvent({ type: "note", text: "saved" });
    }
    onEvent({ type: "stage", stage: "distill", steps: 6, done: 6 });
    onEvent({ type: "stage", stage: "rl", steps: 50, done: 20 });
    onEvent({ type: "stage", stage: "score", steps: 1, done: 0 });
    expect(text.split("\n")).toEqual([
      "sft: done before",
      "distill: 6 steps",
      "compiled the training step in 2.3s",
      "distill: step 2 of 6 (3s, 6s left), loss 0.5",
      "saved",
      "distill: step 4 of 6 (6s, 3s left), loss 0.25",
      "distill: step 6 of 6 (9s, 0s left), loss 0.1667",
      "distill: 6 steps done in 9s, loss 0.1667",
      "rl: goes on after step 20 of 50",
      "score: 1 step",
      "",
    ]);
  });
});
