/** Greedy accuracy against completions of transformers, sampled rewards, and KL against forward passes one by one. */
import { tf } from "tfjs-jit";
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { readRows } from "../../distill/data.js";
import { type EncodedRow, encodePrompts } from "../../distill/encode.js";
import { type EvaluationOptions, judge, sampledReward } from "../../distill/evaluate.js";
import { disposeModel, type LoadedModel, loadModel } from "../../model/loaded.js";
import { readParameters } from "../../model/parameters.js";
import { completionLogprobsAlone } from "../model/alone.js";
import { fixture } from "../model/golden.js";

// The first 64 rows of test.jsonl: what transformers generates in 10 tokens (test/peers/greedy_completions.py).
const generated = (
  "20 58 1 7 5 300 135 112 9 -2 8 8 -153 1.3 12000 6 6 10 24.00 6 2.8 .808 .8 15 1.00 3 2 18 360 1.80 932 22.00 " +
  ".6 2 50 3 6 3 1.5 4.00 1 2 6 2.5 1 4 6 1.00 1.00 1.50 32 22 10 8 9 8 9 1.5 0.50 14 720 75 15 30"
).split(" ");

let teacher: LoadedModel;
let student: LoadedModel;
let rows: EncodedRow[];
beforeAll(async () => {
  teacher = await loadModel(fixture("arithmetic/teacher"));
  student = await loadModel(fixture("arithmetic/student"));
  const all = await readRows(fixture("arithmetic/test.jsonl"));
  rows = await encodePrompts(teacher.folder, all.slice(0, 64), { system: "error", maxNewTokens: 10 });
  vi.stubEnv("HEDDLE_JIT", "0");
});
afterAll(() => {
  disposeModel(teacher);
  disposeModel(student);
  vi.unstubAllEnvs();
});

const breathe = vi.fn(() => Promise.resolve());
beforeEach(() => breathe.mockClear());
const options = (changes: Partial<EvaluationOptions> = {}): EvaluationOptions => ({
  reward: "exact_match",
  max_new_tokens: 10,
  batch_size: 32,
  seed: 0,
  breathe,
  ...changes,
});
const greedy = { samples: 1, temperature: 0 };

describe("judge", () => {
  test("greedy completions are those of transformers, right where they are the row's answer", async () => {
    const { judged, kl } = await judge(teacher, rows, greedy, options());
    expect(judged).toEqual(
      rows.map(({ row: { prompt, answer } }, i) => ({
        prompt,
        answer,
        completion: generated[i],
        reward: generated[i] === answer ? 1 : 0,
      })),
    );
    expect(kl).toEqual([]);
    expect(breathe).toHaveBeenCalledTimes(2); // two batches of 32
  });

  test("greedy completions do not depend on the size of a batch, nor on what fills up the last one", async () => {
    const { judged } = await judge(teacher, rows.slice(0, 9), greedy, options({ batch_size: 7 }));
    expect(judged.map(({ completion }) => completion)).toEqual(generated.slice(0, 9));
    expect(breathe).toHaveBeenCalledTimes(2);
  });

  test("completions of a row follow each other, in the order of the rows; a conversation goes by its last message", async () => {
    const messages = [{ role: "user", content: "1+1=" }];
    const talk = await encodePrompts(student.folder, [{ messages, answer: "2" }], {
      system: "error",
      maxNewTokens: 10,
    });
    const three = [rows[1]!, ...talk, rows[0]!];
    const sampled = { samples: 4, temperature: 1 };
    const { judged } = await judge(student, three, sampled, options({ batch_size: 9 }));
    const of = (prompt: string, answer: string) => new Array(4).fill({ prompt, answer }) as object[];
    expect(judged.map(({ prompt, answer }) => ({ prompt, answer }))).toEqual([
      ...of(rows[1]!.row.prompt!, "102"),
      ...of("1+1=", "2"),
      ...of(rows[0]!.row.prompt!, "20"),
    ]);
    expect(judged.map(({ reward }) => reward)).toEqual(
      judged.map(({ completion, answer }) => (completion === answer ? 1 : 0)),
    );
    expect(breathe).toHaveBeenCalledTimes(2); // 9 completions are two rows of 4
    const again = await judge(student, three, sampled, options({ batch_size: 9 }));
    const other = await judge(student, three, sampled, options({ batch_size: 9, seed: 1 }));
    expect(again.judged).toEqual(judged);
    expect(other.judged).not.toEqual(judged);
  });

  test("the KL of a model to itself is 0", async () => {
    const { kl } = await judge(student, rows.slice(0, 4), { samples: 2, temperature: 1 }, options(), student);
    expect(kl.length).toBe(8);
    expect(Math.max(...kl.map(Math.abs))).toBeLessThan(1e-5);
  });

  test("the KL to another is the sum over a completion's tokens of sum_v q(v) ln (q(v) / p(v))", async () => {
    const { judged, kl } = await judge(teacher, rows.slice(0, 4), greedy, options({ batch_size: 3 }), student);
    const [q, p] = [teacher, student].map(({ parameters }) => readParameters(parameters));
    for (const [i, { completion }] of judged.entries()) {
      const ids = [
        ...(await teacher.folder.tokenizer!.encode(completion)),
        teacher.folder.tokenizer!.idOf("<end_of_turn>")!,
      ];
      const logq = completionLogprobsAlone(q!, teacher.folder.config, rows[i]!.prompt, ids);
      const logp = completionLogprobsAlone(p!, student.folder.config, rows[i]!.prompt, ids);
      const terms = logq.flatMap((row, t) => row.map((x, v) => Math.exp(x) * (x - logp[t]![v]!)));
      const expected = terms.reduce((a, b) => a + b, 0);
      expect(expected).toBeGreaterThan(0.1);
      expect(Math.abs(kl[i]! / expected - 1)).toBeLessThan(1e-4);
    }
    tf.dispose([q, p] as tf.TensorContainer);
  });

  test("leaves no tensor behind", async () => {
    const before = tf.memory().numTensors;
    await judge(student, rows.slice(0, 2), greedy, options({ batch_size: 2 }), teacher);
    expect(tf.memory().numTensors).toBe(before);
  });
});

describe("sampledReward", () => {
  test("is the mean over each row's completions at temperature 1; the first of them are shown", async () => {
    const { judged, kl } = await judge(teacher, rows.slice(0, 6), { samples: 4, temperature: 1 }, options(), student);
    const sampled = await sampledReward(teacher, rows.slice(0, 6), 4, options(), student);
    const rewards = judged.map(({ reward }) => reward as number);
    const right = [0, 4, 8, 12, 16, 20].map((first) => rewards.slice(first, first + 4).reduce((a, b) => a + b));
    expect(new Set(right).size).toBeGreaterThan(1);
    expect([...sampled.byRow]).toEqual(right.map((count) => count / 4));
    expect(sampled.kl).toBeCloseTo(kl.reduce((a, b) => a + b) / 24, 10);
    expect(sampled.judged).toEqual([0, 4, 8, 12, 16, 20].map((first) => judged[first]));
  });

  test("has no KL without a reference", async () => {
    expect((await sampledReward(student, rows.slice(0, 1), 2, options({ batch_size: 2 }), null)).kl).toBeNaN();
  });
});
