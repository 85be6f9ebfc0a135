/**
 * The work of the peers' kd_memory.py: reverse KL at vocabulary 256000 of 2048 tokens, width 2304, soft cap 30, and its
 * gradient by the student's hidden states. Seconds include the compilation, but on a GPU, where it takes longer than the work;
 * memory is the peak less the inputs.
 */
import { device, jit, tf } from "tfjs-jit";
import { divergence } from "../distill/losses.js";
import { meanLoss } from "../distill/token-loss.js";
import { type LazyLogits, logitsOf } from "../model/head.js";
import { peakRssMb, print } from "./time.js";

const [V, W, D] = [256_000, 2048, 2304];
const SOFT_CAP = 30;
// A tenth at a time: the random numbers come from JavaScript.
const embedding_VD = tf.tidy(() => tf.randomNormal([V / 100, D], 0, 0.02).tile([100, 1])) as tf.Tensor2D;
const student_WD: tf.Tensor2D = tf.randomNormal([W, D]);
const teacher_WD: tf.Tensor2D = tf.randomNormal([W, D]);

const step = jit(function kdMemory(student_WD: tf.Tensor2D, teacher_WD: tf.Tensor2D, embedding_VD: tf.Tensor2D) {
  const all_W = tf.fill([W], 1) as tf.Tensor1D;
  return tf.valueAndGrad((hidden_WD: tf.Tensor) => {
    const student = { hidden_WD, embedding_VD, softCap: SOFT_CAP } as LazyLogits;
    return meanLoss(student, all_W, tf.scalar(W), (student_CV, chunkOf) => {
      const teacher_CV = logitsOf({ hidden_WD: chunkOf(teacher_WD), embedding_VD, softCap: SOFT_CAP });
      return divergence(student_CV, teacher_CV, { beta: 1, temperature: 1 });
    });
  })(student_WD);
});

// The inputs are in place, and so is what computing anything takes.
tf.dispose([student_WD, teacher_WD, embedding_VD].map((input) => input.slice([0, 0], [1, 1]).dataSync()) as never);
const before = process.memoryUsage.rss() / 2 ** 20;
const seconds = () => {
  const begin = performance.now();
  const { value, grad } = step(student_WD, teacher_WD, embedding_VD);
  if (!Number.isFinite(value.dataSync()[0])) throw new Error("the loss is not finite");
  tf.dispose([value, grad]);
  return (performance.now() - begin) / 1000;
};
const with_compilation_s = seconds();
const median_s = device === "gpu" ? seconds() : with_compilation_s;
const peak_rss_over_inputs_mb = Math.round(peakRssMb() - before);
print({ name: "heddle reverse KL by chunks", with_compilation_s, median_s, peak_rss_over_inputs_mb });
