/**
 * The work of the peers' warp_torch.py, and what it is worth: warp.js [seed] [distil steps] [RL steps].
 *
 * Distils, does two RL runs, merges them by SLERP, by their plain average and by LITI, and measures every model on all
 * held-out prompts and as many training prompts, 8 samples each, with the same random numbers for all. Differences are to
 * the distilled model on the same prompts: [mean, standard error of the paired difference].
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { distill } from "../distill/distill.js";
import type { EncodedRow } from "../distill/encode.js";
import { sampledReward } from "../distill/evaluate.js";
import { rl } from "../distill/rl.js";
import { mean, standardError } from "../distill/statistics.js";
import { saveStageModel } from "../distill/training.js";
import { lerpCheckpoints, slerpCheckpoints } from "../merge/warp.js";
import { disposeModel, type LoadedModel, loadModel } from "../model/loaded.js";
import { distillSettings, rlSettings } from "./settings.js";
import { accuracy, arithmetic, evaluationOptions, numbersOf, readPrompts, timeStage } from "./stages.js";
import { median, print } from "./time.js";

const SAMPLES = 8;
const [seed, distillSteps, rlSteps] = numbersOf(0, 200, 100);
const work = await mkdtemp(join(tmpdir(), "heddle-bench-"));
const dir = (name: string) => join(work, name);

const student = await loadModel(arithmetic("student"));
const teacher = await loadModel(arithmetic("teacher"));
const train = await readPrompts(student.folder, "train");
const test = await readPrompts(student.folder, "test");
await timeStage("distill", seed, (context) =>
  distill(student, { kind: "local", model: teacher }, train, distillSettings(distillSteps, 0), context),
);
disposeModel(teacher);
await saveStageModel(dir("distilled"), student);

for (const run of [1, 2]) {
  const policy = await loadModel(dir("distilled"));
  const stage = `iteration-1/run-${run}`;
  const time = await timeStage(stage, seed, (context) =>
    rl(policy, "exact_match", train, rlSettings(rlSteps), context),
  );
  print({ name: `heddle ${stage}`, seed, total_s: time.total_s, step_s: median(time.steps) });
  await saveStageModel(dir(`run-${run}`), policy);
  disposeModel(policy);
}

const runs = [dir("run-1"), dir("run-2")];
const merge = { init: dir("distilled"), runs, granularity: "layer", dtype: "float32" } as const;
await slerpCheckpoints({ ...merge, eta: 1, out: dir("slerp") });
await lerpCheckpoints({ ...merge, eta: 1, out: dir("average") });
await slerpCheckpoints({ ...merge, eta: 0.3, out: dir("liti 0.3") });

// As many training prompts as held-out ones, spread evenly over the file.
const spread = test.map((_, i) => train[Math.floor((i * train.length) / test.length)]!);
const sets = { train: spread, test };
const reference = await loadModel(dir("distilled"));
const rewards = async (model: LoadedModel, rows: readonly EncodedRow[], kl: boolean) =>
  sampledReward(model, rows, SAMPLES, evaluationOptions(seed), kl ? reference : null);
const before = { train: await rewards(reference, sets.train, false), test: await rewards(reference, sets.test, false) };
print({ name: "distilled", seed, train: mean(before.train.byRow), test: mean(before.test.byRow) });

for (const name of ["run-1", "run-2", "slerp", "average", "liti 0.3"]) {
  const model = await loadModel(dir(name));
  const [ofTrain, ofTest] = [await rewards(model, sets.train, false), await rewards(model, sets.test, true)];
  const difference = (after: Float64Array, from: Float64Array) => {
    const paired = after.map((reward, row) => reward - from[row]!);
    return [mean(paired), standardError(paired)];
  };
  print({
    name,
    seed,
    accuracy: await accuracy(model, test),
    train: mean(ofTrain.byRow),
    train_gain: difference(ofTrain.byRow, before.train.byRow),
    test: mean(ofTest.byRow),
    test_gain: difference(ofTest.byRow, before.test.byRow),
    kl: ofTest.kl,
  });
  disposeModel(model);
}
await rm(work, { recursive: true });
