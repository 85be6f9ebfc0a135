/** The work of the peers' gkd_arithmetic.py: distill.js [steps] [beta] [seed]. Seconds include every compilation. */
import { distill } from "../distill/distill.js";
import { loadModel } from "../model/loaded.js";
import { distillSettings } from "./settings.js";
import { accuracy, arithmetic, numbersOf, readPrompts, timeStage } from "./stages.js";
import { median, peakRssMb, print } from "./time.js";

const [steps, beta, seed] = numbersOf(200, 1, 0);
const student = await loadModel(arithmetic("student"));
const teacher = await loadModel(arithmetic("teacher"));
const train = await readPrompts(student.folder, "train");
const test = await readPrompts(student.folder, "test");

const before = await accuracy(student, test);
const time = await timeStage("distill", seed, (context) =>
  distill(student, { kind: "local", model: teacher }, train, distillSettings(steps, beta), context),
);
const after = await accuracy(student, test);
const figures = { before, after, total_s: time.total_s, step_s: median(time.steps), peak_rss_mb: peakRssMb() };
print({ name: "heddle distill arithmetic", steps, beta, seed, ...figures });
