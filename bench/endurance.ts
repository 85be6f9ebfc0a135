/** 500 steps of distillation on the arithmetic fixture: resident memory and tensors must not grow. endurance.js [steps] */
import { tf } from "tfjs-jit";
import { distill } from "../distill/distill.js";
import { loadModel } from "../model/loaded.js";
import { distillSettings } from "./settings.js";
import { arithmetic, numbersOf, readPrompts, timeStage } from "./stages.js";
import { print } from "./time.js";

const [steps] = numbersOf(500);
const student = await loadModel(arithmetic("student"));
const teacher = await loadModel(arithmetic("teacher"));
const rows = await readPrompts(student.folder, "train");

await timeStage("endurance", 0, (context) => {
  const onStep = (...[step, metrics]: Parameters<typeof context.onStep>) => {
    if (step === 50 || step % 100 === 0) {
      const rss_mb = process.memoryUsage.rss() / 2 ** 20;
      print({ name: "heddle distil", step, rss_mb: Math.round(rss_mb), tensors: tf.memory().numTensors });
    }
    context.onStep(step, metrics);
  };
  return distill(student, { kind: "local", model: teacher }, rows, distillSettings(steps, 1), { ...context, onStep });
});
