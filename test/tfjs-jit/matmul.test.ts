/**
 * Products of compiled programs by our own kernels against those of TensorFlow. Factors are whole numbers from -4 to 4, so
 * that every sum is exact, in bfloat16 too, and results must be equal.
 */
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { isBfloat16, jit, tf, toBfloat16 } from "tfjs-jit";
import { describe, expect, test } from "vitest";

const wholeNumbers = (shape: number[], seed: number): tf.Tensor =>
  tf.tidy(() => tf.randomUniform(shape, -4, 4, "float32", seed).round());

const asItIs = (x: tf.Tensor): tf.Tensor => x;
type Factor = (x: tf.Tensor) => tf.Tensor;
const dtypes: [string, Factor, Factor][] = [
  ["float32 and float32", asItIs, asItIs],
  ["float32 and bfloat16", asItIs, toBfloat16],
  ["bfloat16 and float32", toBfloat16, asItIs],
  ["bfloat16 and bfloat16", toBfloat16, toBfloat16],
];

// TensorFlow's own product of two in bfloat16 is rounded to that as well.
describe.each(dtypes)("of %s", (_, castA, castB) => {
  // Rows in whole tiles, one more, few; columns and inner dimensions that fill no vector; more than one block each way.
  test.each([
    [[], 1, 4000, 70],
    [[], 5, 301, 130],
    [[], 16, 64, 64],
    [[], 17, 33, 300],
    [[], 28, 64, 256],
    [[], 300, 530, 513],
    [[2, 3], 3, 40, 300],
    [[4], 50, 31, 90],
  ])("batch %j, %i x %i over %i", (batch, m, n, k) => {
    for (const [transposeA, transposeB] of [
      [false, false],
      [false, true],
      [true, false],
      [true, true],
    ]) {
      const a = castA(wholeNumbers([...batch, ...(transposeA ? [k, m] : [m, k])], 1));
      const b = castB(wholeNumbers([...batch, ...(transposeB ? [n, k] : [k, n])], 2));
      const product = (x: tf.Tensor, y: tf.Tensor) => tf.matMul(x, y, transposeA, transposeB);
      const [ours, theirs] = [jit(product)(a, b), jit(product, { xla: false })(a, b)];
      expect(isBfloat16(ours)).toBe(isBfloat16(theirs));
      expect(ours.shape).toEqual([...batch, m, n]);
      expect(ours.dataSync()).toEqual(theirs.dataSync());
    }
  });
});

test("have the gradients of tf.matMul", () => {
  const [a, b] = [wholeNumbers([40, 50], 1), wholeNumbers([30, 50], 2)];
  const f = (x: tf.Tensor, y: tf.Tensor) => tf.matMul(x, y, false, true).square().sum();
  const gradients = (g: (x: tf.Tensor, y: tf.Tensor) => tf.Tensor) =>
    tf
      .grads((x, y) => g(x!, y!))([a, b])
      .map((gradient) => gradient.arraySync());
  const traced = jit((x: tf.Tensor, y: tf.Tensor) => tf.grads((x, y) => f(x!, y!))([x, y]));
  expect(traced(a, b).map((gradient) => gradient.arraySync())).toEqual(gradients(f));
});

test("have the same bits on one thread and on four, from the compiler and from the compile cache", async () => {
  const folder = await mkdtemp(join(tmpdir(), "heddle-matmul-"));
  const script = `
    import { createHash } from "node:crypto";
    import { jit, tf } from "tfjs-jit";
    const x = tf.randomNormal([300, 700], 0, 1, "float32", 1);
    const f = jit((x) => [tf.matMul(x, x, true, false), tf.matMul(x.slice([0, 0], [7, 700]), x, false, true)]);
    const sum = createHash("sha256");
    for (const y of f(x)) sum.update(new Uint8Array(y.dataSync().buffer));
    console.log(sum.digest("hex"));`;
  const run = async (threads: number) => {
    const env = { ...process.env, HEDDLE_COMPILE_CACHE: folder, TF_NUM_INTRAOP_THREADS: `${threads}` };
    return (await promisify(execFile)(process.execPath, ["--input-type=module", "-e", script], { env })).stdout;
  };
  const first = await run(4);
  expect(first).toMatch(/^[0-9a-f]{64}\n$/);
  expect(await run(4)).toBe(first);
  expect(await run(1)).toBe(first);
  await rm(folder, { recursive: true });
});
