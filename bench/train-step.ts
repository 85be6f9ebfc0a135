/** The work of the peers' train_step.py: forward, reverse KL against given log-probabilities at every token, backward. */
import { jit, tf } from "tfjs-jit";
import { divergence, tokenMean } from "../distill/losses.js";
import type { Block } from "../model/attention.js";
import type { ModelConfig } from "../model/config.js";
import { forward, logits } from "../model/forward.js";
import type { Parameters } from "../model/parameters.js";
import { listTensors } from "../model/scoring.js";
import { linear, listRows } from "../model/token-list.js";
import { valueAndGradients } from "../student/optimiser.js";
import { randomIds, randomParameters, studentConfig } from "./models.js";
import { timed } from "./time.js";

const [V, B, T] = [8192, 8, 128];
const config = studentConfig(V);
const parameters = randomParameters(config);
const rows = Array.from({ length: B }, () => ({ ...linear(randomIds(T, V)), wanted: [] }));
const { block } = listTensors(
  listRows(rows, { slots: T, queries: 0, sharedPrefix: 0, size: B * T, wantedSize: 0, inOrder: true }),
);
const logp_MV = tf.logSoftmax(tf.randomNormal([B * T, V])) as tf.Tensor2D;

const step = jit(function trainStep(given: Parameters, of: ModelConfig, tokens: Block, teacher_MV: tf.Tensor2D) {
  const all_M = tf.ones<tf.Rank.R1>([B * T]);
  return valueAndGradients(given, (weights) => {
    const student_MV = logits(weights, of, forward(weights, of, tokens).hidden_MD);
    return tokenMean(divergence(student_MV, teacher_MV, { beta: 1, temperature: 1 }), all_M);
  });
});

timed("heddle train step", () => {
  const { value, gradients } = step(parameters, config, block, logp_MV);
  if (!Number.isFinite(value.dataSync()[0])) throw new Error("the loss is not finite");
  tf.dispose([value, gradients] as unknown as tf.TensorContainer);
});
