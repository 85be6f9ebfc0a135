/** The work of the peers' gkd.py: on-policy distillation, 8 prompts of about 64 tokens, 64 sampled tokens each. gkd.js [dtype of the teacher] */
import { distill } from "../distill/distill.js";
import { encodePrompts } from "../distill/encode.js";
import type { ComputeDtype } from "../model/compute.js";
import { computedAs, type ModelConfig } from "../model/config.js";
import { openModel } from "../model/load.js";
import type { LoadedModel } from "../model/loaded.js";
import { randomParameters, studentConfig, teacherConfig } from "./models.js";
import { distillSettings } from "./settings.js";
import { arithmetic, readArithmetic, timeStage } from "./stages.js";
import { peakRssMb, print, summary } from "./time.js";

const [V, N, WARM_UP, RUNS] = [2048, 64, 2, 7];
// The tokenizer and template of the fixture; random weights never stop.
const folder = { ...(await openModel(arithmetic("teacher"))), stopIds: [] };
const random = (of: ModelConfig, dtype: ComputeDtype): LoadedModel => {
  const config = computedAs(of, { dtype });
  return { folder: { ...folder, config }, parameters: randomParameters(config) };
};
const student = random(studentConfig(V), "float32");
const teacher = random(teacherConfig(V), process.argv[2] === "bfloat16" ? "bfloat16" : "float32");
const pad = Array.from({ length: 48 }, (_, i) => String.fromCharCode(97 + (i % 26))).join("");
const rows = (await readArithmetic("train")).slice(0, 400).map((row) => ({ ...row, prompt: pad + row.prompt! }));
const encoded = await encodePrompts(student.folder, rows, { system: "error", maxNewTokens: N });

const settings = { ...distillSettings(WARM_UP + RUNS, 1), batch_size: 8, max_new_tokens: N, learning_rate: 1e-4 };
const { steps } = await timeStage("gkd", 0, (context) =>
  distill(student, { kind: "local", model: teacher }, encoded, settings, context),
);
print({ name: "heddle GKD step", ...summary(steps.slice(WARM_UP)), peak_rss_mb: peakRssMb() });
