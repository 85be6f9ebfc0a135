/** Reward models: what they see of a completion, what they give, what is refused, and RL on it. */
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { tf } from "tfjs-jit";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { deriveSeed, planBatch } from "../../distill/batches.js";
import { place } from "../../distill/data.js";
import { type EncodedRow, encodePrompts, judgedIds } from "../../distill/encode.js";
import { judge } from "../../distill/evaluate.js";
import { checkRewarded, closeReward, loadReward, openReward, rewarder } from "../../distill/reward-model.js";
import { type RlSettings, rl } from "../../distill/rl.js";
import { decodeAll, rollOut } from "../../distill/rollouts.js";
import { sizesOf } from "../../model/batch.js";
import { labelScores } from "../../model/classify.js";
import { ModelError } from "../../model/errors.js";
import { forward } from "../../model/forward.js";
import { openModel } from "../../model/load.js";
import { disposeModel, type LoadedModel, loadModel } from "../../model/loaded.js";
import { readParameters } from "../../model/parameters.js";
import { run as score } from "../../pipelines/tasks/score.js";
import { completionLogitsAlone, gradients, largestRelativeDifference } from "../model/alone.js";
import { setKeys } from "../model/folder.js";
import { fixture } from "../model/golden.js";
import { readJsonl, rowsFile, taskContext } from "../pipelines/command.js";
import { sines, withHead, writeRewardAdapter, writeRewardModel } from "./reward-folder.js";
import { newFolder, oneLayer, stageContext, stateIn, stopped, toDevice, training } from "./stage.js";

const student = fixture("arithmetic/student");
const teacher = fixture("arithmetic/teacher");
const system = "error" as const;

let policy: LoadedModel;
let judgeDir: string;
let rows: EncodedRow[];
const data = [
  { prompt: "1+2=" },
  { prompt: "(10*10)/100=" },
  {
    messages: [
      { role: "user", content: "7-9=" },
      { role: "assistant", content: "no answer" },
    ],
  },
];
beforeAll(async () => {
  vi.stubEnv("HEDDLE_JIT", "0");
  policy = await loadModel(student);
  judgeDir = join(await newFolder(), "judge");
  await writeRewardModel(teacher, judgeDir, { factor: 0.05 });
  rows = await encodePrompts(policy.folder, data, { system, maxNewTokens: 5 });
});
afterAll(() => {
  disposeModel(policy);
  vi.unstubAllEnvs();
});

const texts = ["3", "", " 1.5 and <end_of_turn>"];
const completed = () => rows.map((row, i) => ({ row, text: texts[i]! }));

async function withJudge<R>(work: (model: LoadedModel) => Promise<R>, dtype: "float32" | "bfloat16" = "float32") {
  const reward = await loadReward(await openReward({ model: judgeDir, dtype }, policy.folder));
  try {
    return await work(reward as LoadedModel);
  } finally {
    closeReward(reward);
  }
}

describe("what a reward model sees", () => {
  test("is the conversation, rendered by its template to the end of the answer's turn", async () => {
    const { folder } = policy;
    const ids = await judgedIds(folder, { prompt: "1+2=" }, { system }, { role: "assistant", content: " 3" });
    const text = "<start_of_turn>user\n1+2=<end_of_turn>\n<start_of_turn>model\n3<end_of_turn>\n";
    expect(ids).toEqual(await folder.chat.textIds(text));
    expect(ids.at(0)).toBe(folder.tokenizer!.idOf("<bos>"));
  });

  test("a completion that spells the end of a turn does not end it", async () => {
    const { folder } = policy;
    const end = folder.tokenizer!.idOf("<end_of_turn>")!;
    const spelled = { role: "assistant", content: "<end_of_turn>" };
    const ends = async (read: object) =>
      (await judgedIds(folder, { prompt: "1" }, { system, ...read }, spelled)).filter((id) => id === end).length;
    expect([await ends({}), await ends({ allowControlTokens: true })]).toEqual([2, 3]);
  });

  test("is prompt and completion as one text where it has no template", async () => {
    const { folder } = policy;
    const plain = { ...folder, chat: { ...folder.chat, hasTemplate: false } };
    const ids = await judgedIds(plain, { prompt: "1+2=" }, { system }, { role: "assistant", content: "3" });
    expect(ids).toEqual(await folder.chat.textIds("1+2=3"));
  });
});

describe("rewarder", () => {
  const options = { maxNewTokens: 8, size: 2 };

  test("gives what labelScores and `heddle score` give of the same texts, in batches of any size", async () => {
    await withJudge(async (model) => {
      const sequences = await Promise.all(
        completed().map(({ row: { row }, text }) =>
          judgedIds(model.folder, row, { system }, { role: "assistant", content: text }),
        ),
      );
      const sizes = sizesOf(sequences, { rows: 3, samples: 1, maxNewTokens: 1 });
      const expected = labelScores(model.parameters, model.folder.config, sequences, sizes).map(([score]) => score!);
      expect(new Set(expected.map((score) => score.toFixed(3))).size).toBe(3);

      const user = data.map(({ prompt, messages }) => ({ role: "user", content: prompt ?? messages![0]!.content }));
      const scored = rowsFile(texts.map((content, i) => ({ messages: [user[i]!, { role: "assistant", content }] })));
      const params = { model: judgeDir, data: scored.data, out: scored.out, batchSize: 3, system };
      await score(params, taskContext());
      const told = readJsonl<{ scores: number[] }>(scored.out).map(({ scores }) => scores[0]!);

      for (const size of [1, 2, 3, 5]) {
        const rewards = await (await rewarder(model, rows, { ...options, size }))(completed());
        for (const [i, reward] of rewards.entries()) {
          expect(Math.abs(reward - expected[i]!)).toBeLessThan(1e-6);
          expect(Math.abs(reward - told[i]!)).toBeLessThan(1e-6);
        }
        expect(rewards.length).toBe(3);
      }
    });
  });

  test("in bfloat16 within the rounding", async () => {
    const [whole, half] = await Promise.all(
      (["float32", "bfloat16"] as const).map((dtype) =>
        withJudge(async (model) => (await rewarder(model, rows, options))(completed()), dtype),
      ),
    );
    const largest = Math.max(...whole!.map(Math.abs));
    for (const [i, reward] of half!.entries()) expect(Math.abs(reward - whole![i]!)).toBeLessThan(0.05 * largest);
  });

  test("compiled, it gives the same", async () => {
    const eager = await withJudge(async (model) => (await rewarder(model, rows, options))(completed()));
    vi.stubEnv("HEDDLE_JIT", "1");
    const compiled = await withJudge(async (model) => (await rewarder(model, rows, options))(completed()));
    vi.stubEnv("HEDDLE_JIT", "0");
    for (const [i, reward] of compiled.entries()) expect(Math.abs(reward - eager[i]!)).toBeLessThan(1e-4);
  });

  test("of exact_match it is 1 where the completion is the answer", async () => {
    const answered = rows.map((row) => ({ ...row, row: { ...row.row, answer: "3" } }));
    const rewardsOf = await rewarder("exact_match", answered, options);
    expect(await rewardsOf(texts.map((text, i) => ({ row: answered[i]!, text })))).toEqual([1, 0, 0]);
  });

  test("a reward that is not finite is the reward model's error, in training and in measuring", async () => {
    const reward = withHead(policy, new Float32Array(policy.folder.config.hiddenSize).fill(Number.NaN));
    const placed = rows.map((row, i) => ({ ...row, row: { ...row.row, [place]: `rows.jsonl:${i + 1}` } }));
    const error = new ModelError(
      student,
      "the score of rows.jsonl:1 is NaN, expected a finite number: the model's activations overflow; set dtype float32, or " +
        "take another model",
    );
    const rewardsOf = await rewarder(reward, placed, options);
    const texts = ["1", "2", "3", "4", "5", "6"];
    await expect(rewardsOf(texts.map((text) => ({ row: placed[0]!, text })))).rejects.toThrow(error);
    const judging = { reward, max_new_tokens: 5, batch_size: 1, seed: 1, breathe: () => Promise.resolve() };
    await expect(judge(policy, placed.slice(0, 1), { samples: 1, temperature: 1 }, judging)).rejects.toThrow(error);
    const settings = { ...training, steps: 1, prompts: 1, samples: 4, beta_kl: 0, mu: 0.25, temperature: 1 };
    const { context } = stageContext(await newFolder());
    await expect(rl(policy, reward, placed.slice(0, 1), settings, context)).rejects.toThrow(error);
  });

  test("what is too long for the reward model is refused where it is a prompt, cut off where it is a completion", async () => {
    const cut = join(await newFolder(), "short");
    await writeRewardModel(teacher, cut);
    await setKeys(join(cut, "config.json"), { max_position_embeddings: 24 });
    const opened = await openReward({ model: cut, dtype: "float32" }, policy.folder);
    // <bos>, two turns with their control tokens and newlines, the four characters of 1+2=.
    const length = (await judgedIds(policy.folder, { prompt: "1+2=" }, { system }, { role: "assistant", content: "" }))
      .length;
    const [first] = rows;
    const placed = { ...first!, row: { ...first!.row, [place]: "rows.jsonl:7" } };
    await expect(checkRewarded(opened, [placed], 24 - length)).resolves.toMatchObject({ longest: length });
    await expect(checkRewarded(opened, [placed], 25 - length)).rejects.toThrow(
      `rows.jsonl:7: the prompt with an empty answer has ${length} tokens of the reward model (${cut}); with max_new_tokens ` +
        `${25 - length} expected at most 24, its max_position_embeddings`,
    );
    const reward = await loadReward(opened);
    const rewardsOf = await rewarder(reward, [first!], { maxNewTokens: 24 - length, size: 1 });
    const of = async (text: string) => (await rewardsOf([{ row: first!, text }]))[0]!;
    const fits = await of("1".repeat(24 - length));
    expect(await of(`${"1".repeat(24 - length)}23`)).toBe(fits);
    expect(await of("1".repeat(23 - length))).not.toBe(fits);
    closeReward(reward);
  });
});

describe("openReward refuses", () => {
  const sure = "expected a reward model: one for sequence classification (such as Gemma2ForSequenceClassification)";

  /** What is said of a reward model after a change to its folder. */
  async function complaint(change: (dir: string) => Promise<unknown>, labels = 1): Promise<string> {
    const dir = join(await newFolder(), "judge");
    await writeRewardModel(student, dir, { labels });
    await change(dir);
    const error: unknown = await openReward({ model: dir, dtype: "float32" }, policy.folder).catch((e: unknown) => e);
    expect(error).toMatchObject({ name: "ModelError" });
    return (error as Error).message.replaceAll(dir, "judge");
  }

  test("a language model, and more than one label", async () => {
    const asModel = (dir: string) => setKeys(join(dir, "config.json"), { architectures: ["Gemma2ForCausalLM"] });
    expect(await complaint(asModel)).toBe(`judge/config.json: describes a language model, ${sure} with one label`);
    expect(await complaint(async () => {}, 3)).toBe(
      `judge/config.json: describes a classifier of 3 labels, ${sure} with one label, "num_labels": 1`,
    );
  });

  test("a folder without tokenizer, or without chat template where the policy has one", async () => {
    expect(await complaint((dir) => rm(join(dir, "tokenizer.json")))).toBe(
      "judge/tokenizer.json: no such file, expected the reward model's own tokenizer: prompts and completions come to it as text",
    );
    expect(await complaint((dir) => rm(join(dir, "chat_template.jinja")))).toBe(
      'judge: no chat template (chat_template.jinja, or "chat_template" in tokenizer_config.json), expected that of the ' +
        `reward model's training, since the prompts of the policy (${student}) are chats`,
    );
  });

  test("a tokenizer that lacks the tokens of turns; another vocabulary is fine", async () => {
    const tokenizer = async (dir: string, changes: (file: string) => string) => {
      const path = join(dir, "tokenizer.json");
      await writeFile(path, changes(await readFile(path, "utf8")));
    };
    expect(await complaint((dir) => tokenizer(dir, (file) => file.replaceAll("<start_of_turn>", "<turn>")))).toBe(
      "judge/tokenizer.json: has no token <start_of_turn>, which the chat template renders; expected the tokenizer that the " +
        "reward model was trained with",
    );
    const other = join(await newFolder(), "judge");
    await writeRewardModel(student, other);
    await tokenizer(other, (file) => file.replaceAll('"1":', '"one":'));
    await expect(openReward({ model: other, dtype: "float32" }, policy.folder)).resolves.toMatchObject({ dir: other });
  });
});

test("an adapter that stores the head makes a reward model of a language model, as PEFT's SEQ_CLS does", async () => {
  const adapter = await newFolder();
  await writeRewardAdapter(teacher, adapter);
  const reward = await loadReward(await openReward({ model: adapter, dtype: "float32" }, policy.folder));
  const rewards = await (await rewarder(reward, rows, { maxNewTokens: 8, size: 3 }))(completed());
  closeReward(reward);
  const whole = await withJudge(async (model) =>
    (await rewarder(model, rows, { maxNewTokens: 8, size: 3 }))(completed()),
  );
  for (const [i, own] of rewards.entries()) expect(Math.abs(own - whole[i]!)).toBeLessThan(1e-6);

  await expect(openModel(adapter)).rejects.toThrow(
    `${join(adapter, "adapter_model.safetensors")}: holds the head of a model for sequence classification (1 labels), expected a ` +
      "language model; `heddle score` takes both",
  );
});

test("measuring a model gives the rewards of its completions; rows need no answer", async () => {
  await withJudge(async (reward) => {
    const options = { reward, max_new_tokens: 5, batch_size: 4, seed: 1, breathe: () => Promise.resolve() };
    const { judged } = await judge(policy, rows, { samples: 2, temperature: 1 }, options);
    const both = rows.flatMap((row) => [row, row]);
    const rewardsOf = await rewarder(reward, rows, { maxNewTokens: 5, size: 6 });
    const expected = await rewardsOf(judged.map(({ completion }, i) => ({ row: both[i]!, text: completion })));
    expect(judged.map(({ answer, reward: own }) => [answer, own])).toEqual(
      expected.map((own) => [null, expect.closeTo(own, 5)]),
    );
  });
});

describe("rl", () => {
  const settings: RlSettings = {
    ...training,
    steps: 1,
    prompts: 2,
    samples: 3,
    beta_kl: 0.5,
    mu: 0.25,
    temperature: 1,
  };

  test("a step follows the formula, with rewards that are a coordinate of the last token's hidden state", async () => {
    // The head picks coordinate 5, times 3.
    const { hiddenSize } = policy.folder.config;
    const head = Float32Array.from({ length: hiddenSize }, (_, i) => (i === 5 ? 3 : 0));
    const reward = withHead(policy, head);
    const weights = readParameters(policy.parameters);
    const two = rows.slice(0, 2);
    const { seed, stage } = stageContext("").context;
    const picked = planBatch({ seed, stage, step: 1, rows: 2, size: 2 }).map((i) => two[i]!);
    const prompts = picked.map(({ prompt }) => prompt);
    const sizes = sizesOf(prompts, { rows: 2, samples: 3, maxNewTokens: 5 });
    const { completions } = rollOut(policy, prompts, sizes, {
      temperature: 1,
      seed: deriveSeed(seed, stage, "sample", 1),
    });
    const sampled = await decodeAll(policy.folder, completions);
    const rewards = await Promise.all(
      sampled.map(async (content, c) => {
        const { row } = picked[Math.floor(c / 3)]!;
        const ids = await judgedIds(policy.folder, row, { system }, { role: "assistant", content });
        return tf.tidy(() => 3 * lastHidden(ids)[5]!);
      }),
    );
    function lastHidden(ids: readonly number[]): number[] {
      const T = ids.length;
      const places = () => tf.range(0, T, 1, "int32");
      const { hidden_MD } = forward(weights, policy.folder.config, {
        ids_M: tf.tensor1d([...ids], "int32"),
        positions_M: places(),
        segments_M: tf.fill([T], 0, "int32"),
        layout: { token_BT: places().reshape([1, T]), slot_M: places() },
      });
      return hidden_MD.arraySync().at(-1)!;
    }
    // The anchor is the policy: nothing is subtracted but the mean of the prompt's other two samples.
    const advantages = rewards.map((own, c) => {
      const first = 3 * Math.floor(c / 3);
      const [a, b] = [first, first + 1, first + 2].filter((other) => other !== c).map((other) => rewards[other]!);
      return own - (a! + b!) / 2;
    });
    const lossOf = (of: Record<string, tf.Tensor>): tf.Scalar =>
      tf
        .addN(
          completions.map(({ ids }, c) =>
            tf
              .logSoftmax(completionLogitsAlone(of, policy.folder.config, picked[Math.floor(c / 3)]!.prompt, ids))
              .mul(tf.oneHot(tf.tensor1d(ids, "int32"), 384))
              .sum()
              .mul(advantages[c]!),
          ),
        )
        .div(-6);
    const expected = gradients(weights, lossOf);
    const loss = tf.tidy(() => lossOf(weights).dataSync()[0]!);

    const dir = await newFolder();
    const { context, log } = stageContext(dir, { stopAfter: 1 });
    await expect(rl(policy, reward, two, { ...settings, learning_rate: 0 }, context)).rejects.toBe(stopped);
    expect(new Set(rewards.map((own) => own.toFixed(2))).size).toBeGreaterThan(2);
    const mean = rewards.reduce((a, b) => a + b) / 6;
    expect(log[0]).toMatchObject({
      reward: expect.closeTo(mean, 5),
      loss: expect.closeTo(loss, 4),
      kl: expect.closeTo(0, 5),
    });
    const m = toDevice((await stateIn(dir, policy)).m);
    const tenth = Object.fromEntries(Object.entries(expected).map(([name, gradient]) => [name, gradient.mul(0.1)]));
    expect(largestRelativeDifference(m, tenth)).toBeLessThan(1e-3);
    tf.dispose([weights, expected, m, tenth] as unknown as tf.TensorContainer);
  });

  test("the reward rises", async () => {
    const copy = await loadModel(student);
    const learner = oneLayer(copy);
    const reward = withHead(oneLayer(policy), sines(policy.folder.config.hiddenSize, 0.3));
    const { context, log } = stageContext(await newFolder());
    const many = { steps: 25, prompts: 3, samples: 8, max_new_tokens: 2, learning_rate: 2e-3 };
    await rl(learner, reward, rows, { ...settings, ...many, beta_kl: 0 }, context);
    disposeModel(copy);
    const mean = (part: typeof log) => part.reduce((sum, { reward: own }) => sum + own!, 0) / part.length;
    const [before, after] = [mean(log.slice(0, 2)), mean(log.slice(-5))];
    expect(after).toBeGreaterThan(before + 0.7);
  });
});

test("a folder of the policy's kind opens, too, where neither has a template", async () => {
  const plain = await openModel(student);
  const judge = join(await newFolder(), "judge");
  await writeRewardModel(student, judge);
  await rm(join(judge, "chat_template.jinja"));
  const noChat = { ...plain, chat: { ...plain.chat, hasTemplate: false } };
  await expect(openReward({ model: judge, dtype: "float32" }, noChat)).resolves.toMatchObject({ dir: judge });
});
