/** Clipping against torch.nn.utils.clip_grad_norm_ 2.15 on gradients (3, 4) and (12, 0), whose global norm is 13. */
import { jit, tf } from "tfjs-jit";
import { describe, expect, test } from "vitest";
import { clipFactor, globalNorm } from "../../student/clip.js";

const numbers = (x: tf.Tensor | undefined) => Array.from(x!.dataSync());

const gradients = [tf.tensor1d([3, 4]), tf.tensor2d([[12, 0]])];
function clip(gradients: readonly tf.Tensor[], maxNorm: number) {
  const norm = globalNorm(gradients);
  const factor = clipFactor(norm, maxNorm);
  return { norm, clipped: gradients.map((gradient) => gradient.mul(factor)) };
}

describe("clipping", () => {
  test("scales all gradients together to the limit, as torch does", () => {
    const { clipped, norm } = clip(gradients, 1);
    expect(numbers(norm)).toEqual([13]);
    expect(numbers(clipped[0])[0]).toBeCloseTo(0.230769217, 7);
    expect(numbers(clipped[0])[1]).toBeCloseTo(0.307692289, 7);
    expect(numbers(clipped[1])[0]).toBeCloseTo(0.923076868, 7);
  });

  test.each([20, Number.POSITIVE_INFINITY])("leaves gradients alone below a limit of %d", (maxNorm) => {
    const { clipped, norm } = clip(gradients, maxNorm);
    expect(numbers(norm)).toEqual([13]);
    expect(clipped.map(numbers)).toEqual([
      [3, 4],
      [12, 0],
    ]);
  });

  test("leaves gradients of zero at zero", () => {
    const { clipped, norm } = clip([tf.zeros([3])], 1);
    expect([...numbers(norm), ...numbers(clipped[0])]).toEqual([0, 0, 0, 0]);
  });

  test("has the norm of rows of any size: of 64, 96 and 33 twos", () => {
    const norm = (...given: tf.Tensor[]) => globalNorm(given);
    const twos = [tf.fill([2, 32], 2), tf.fill([96], 2), tf.fill([3, 11], 2)];
    for (const of of [norm, jit(norm)]) expect(numbers(of(...twos))[0]).toBeCloseTo(Math.sqrt(4 * 193), 5);
  });

  test("says and does the same when compiled", () => {
    const { clipped, norm } = jit((...given: tf.Tensor[]) => clip(given, 1))(...gradients);
    expect(numbers(norm)[0]).toBeCloseTo(13, 5);
    expect(numbers(clipped[1])[0]).toBeCloseTo(0.923076868, 6);
  });
});
