/** Logits of a head that is worked through in parts are those of the whole head. */
import { isBfloat16, jit, tf, toBfloat16, toFloat32 } from "tfjs-jit";
import { afterEach, describe, expect, test, vi } from "vitest";
import { addHeadGradient, hiddenGradient, logitsOf, rawLogits, times } from "../../model/head.js";

afterEach(() => vi.unstubAllEnvs());

const numbers = (x: tf.Tensor): number[] => Array.from(x.dataSync());
const hidden_WD = tf.tensor2d([
  [1, 2],
  [-3, 0.5],
]);
/** Exact in bfloat16. */
const embedding_VD = tf.tensor2d([
  [1, 0],
  [0, 1],
  [1, 1],
  [2, -1],
  [0.5, 4],
]);
const raw = [1, 2, 3, 0, 8.5, -3, 0.5, -2.5, -6.5, 0.5];

test("logits are hidden states times the head, capped", () => {
  expect(numbers(rawLogits({ hidden_WD, embedding_VD }))).toEqual(raw);
  const capped = numbers(logitsOf({ hidden_WD, embedding_VD, softCap: 4 }));
  capped.forEach((logit, i) => {
    expect(logit).toBeCloseTo(4 * Math.tanh(raw[i]! / 4), 5);
  });
});

// Elements: all in one part, parts of two rows that overlap, of one row.
describe.each([10, 4, 2, 1])("a head in bfloat16, at most %i elements at a time", (maxPart) => {
  test.each(["1", "0"])("has the same logits and gradients, in float32, HEDDLE_JIT=%s", (HEDDLE_JIT) => {
    vi.stubEnv("HEDDLE_JIT", HEDDLE_JIT);
    const dRaw_WV = tf.tensor2d(raw, [2, 5]);
    const of = jit((hidden: tf.Tensor2D, head: tf.Tensor2D, dRaw: tf.Tensor2D) => ({
      logits: rawLogits({ hidden_WD: hidden, embedding_VD: head }, maxPart),
      dHidden: hiddenGradient(dRaw, { embedding_VD: head }, maxPart),
      dHead: addHeadGradient(toFloat32(head) as tf.Tensor2D, dRaw, { hidden_WD: hidden }, maxPart),
    }));
    const { logits, dHidden, dHead } = of(hidden_WD, toBfloat16(embedding_VD) as tf.Tensor2D, dRaw_WV);
    expect([logits, dHidden, dHead].some(isBfloat16)).toBe(false);
    expect(numbers(logits)).toEqual(raw);
    expect(numbers(dHidden)).toEqual(numbers(tf.matMul(dRaw_WV, embedding_VD)));
    expect(numbers(dHead)).toEqual(numbers(embedding_VD.add(tf.matMul(dRaw_WV, hidden_WD, true))));
  });
});

test.each(["1", "0"])("a large head has the product of a small one, and its gradients, HEDDLE_JIT=%s", (HEDDLE_JIT) => {
  vi.stubEnv("HEDDLE_JIT", HEDDLE_JIT);
  // As large as is turned round; each logit is 128 products of whole numbers, exact in float32.
  const [W, V, D] = [3, 2 ** 16, 128];
  const whole = (...shape: [number, number]) =>
    tf.tidy(() =>
      tf
        .range(0, shape[0] * shape[1])
        .mod(7)
        .sub(3)
        .reshape<tf.Tensor2D>(shape),
    );
  const run = jit((hidden: tf.Tensor2D, head: tf.Tensor2D, weights: tf.Tensor2D, isLarge: boolean) => {
    const product = isLarge ? times : (a: tf.Tensor2D, b: tf.Tensor2D) => tf.matMul(a, b, false, true);
    const { value, grads } = tf.valueAndGrads((a, b) => {
      const logits_WV = product(a as tf.Tensor2D, b as tf.Tensor2D);
      return logits_WV.mul(weights).mean();
    })([hidden, head]);
    return [product(hidden, head), value, ...grads];
  });
  const given = [whole(W, D), whole(V, D), whole(W, V)] as const;
  const [turned, plain] = [run(...given, true), run(...given, false)];
  turned.forEach((tensor, i) => {
    const largest = plain[i]!.abs().max().dataSync()[0]!;
    expect(largest).toBeGreaterThan(0);
    expect(tensor.sub(plain[i]!).abs().max().dataSync()[0]! / largest).toBeLessThan(1e-6);
  });
});
