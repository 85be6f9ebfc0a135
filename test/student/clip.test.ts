/** Clipping against torch.nn.utils.clip_grad_norm_ 2.15 on gradients (3, 4) and (12, 0), whose global norm is 13. */
import { jit, tf } from "tfjs-jit";
import { describe, expect, test } from "vitest";
import { clipByGlobalNorm } from "../../student/clip.js";

const numbers = (x: tf.Tensor | undefined) => Array.from(x!.dataSync());
const grads = () => ({ a: tf.tensor1d([3, 4]), b: tf.tensor2d([[12, 0]]) });

describe("clipByGlobalNorm", () => {
  test("scales all gradients together to the limit, as torch does", () => {
    const { grads: clipped, norm } = clipByGlobalNorm(grads(), 1);
    expect(numbers(norm)).toEqual([13]);
    expect(numbers(clipped.a)[0]).toBeCloseTo(0.230769217, 7);
    expect(numbers(clipped.a)[1]).toBeCloseTo(0.307692289, 7);
    expect(numbers(clipped.b)[0]).toBeCloseTo(0.923076868, 7);
    expect(clipped.b!.shape).toEqual([1, 2]);
  });

  test.each([20, Number.POSITIVE_INFINITY])("leaves gradients alone below a limit of %d", (maxNorm) => {
    const { grads: clipped, norm } = clipByGlobalNorm(grads(), maxNorm);
    expect(numbers(norm)).toEqual([13]);
    expect(numbers(clipped.a)).toEqual([3, 4]);
    expect(numbers(clipped.b)).toEqual([12, 0]);
  });

  test("leaves gradients of zero at zero", () => {
    const { grads: clipped, norm } = clipByGlobalNorm({ a: tf.zeros([3]) }, 1);
    expect([...numbers(norm), ...numbers(clipped.a)]).toEqual([0, 0, 0, 0]);
  });

  test("says and does the same when compiled", () => {
    const { grads: clipped, norm } = jit((g: Record<string, tf.Tensor>) => clipByGlobalNorm(g, 1))(grads());
    expect(numbers(norm)[0]).toBeCloseTo(13, 5);
    expect(numbers(clipped.b)[0]).toBeCloseTo(0.923076868, 6);
  });
});
