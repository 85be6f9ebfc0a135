/** Quantised matrices on the device: their values, products and gradients, and models that are made of them. */
import { jit, tf } from "tfjs-jit";
import { afterEach, describe, expect, test, vi } from "vitest";
import { computedAs, type ModelConfig, readModelConfig } from "../../model/config.js";
import { forward, hiddenStates, logits, type Weights } from "../../model/forward.js";
import { hiddenGradient, rawLogits } from "../../model/head.js";
import { quantiseInt8, quantiseNf4 } from "../../model/quantise.js";
import {
  dequantised,
  int8Rows,
  int8Tensors,
  isPart,
  matrixOf,
  nf4Tensors,
  type Quantised,
  timesQuantised,
} from "../../model/quantised.js";
import { EMBEDDING, parameterShapes } from "../../model/shapes.js";
import type { Storage } from "../../model/stored-tensor.js";
import { loadWeights } from "../../model/weights.js";
import { fixture, largestDifference, readGolden } from "./golden.js";

afterEach(() => vi.unstubAllEnvs());

const waves = (length: number, step: number): Float32Array =>
  Float32Array.from({ length }, (_, i) => Math.sin(i * step) * 0.1);

const [R, C] = [24, 64];
const ofKind = (kind: "nf4" | "int8"): Quantised => {
  const values = waves(R * C, 1.3);
  const parts = kind === "nf4" ? nf4Tensors(quantiseNf4(values), R) : int8Tensors(quantiseInt8(values, R), R);
  return { shape: [R, C], parts };
};
const product = (a: tf.Tensor2D, b: tf.Tensor2D, isTransposed: boolean): tf.Tensor2D =>
  tf.matMul(a, b, false, isTransposed);

describe.each(["nf4", "int8"] as const)("%s", (kind) => {
  test.each(["1", "0"])("products and gradients are those of the values, HEDDLE_JIT=%s", (HEDDLE_JIT) => {
    vi.stubEnv("HEDDLE_JIT", HEDDLE_JIT);
    const matrix = ofKind(kind);
    const values = dequantised(matrix);
    const [x, dy] = [tf.tensor2d(waves(5 * C, 0.7), [5, C]), tf.tensor2d(waves(5 * R, 0.3), [5, R])];
    const both = (times: (x: tf.Tensor2D) => tf.Tensor2D) => jit(() => tf.valueAndGrad(times)(x, dy))();
    const [got, expected] = [both((y) => timesQuantised(y, matrix, product)), both((y) => product(y, values, true))];
    expect(largestDifference(got.value, expected.value)).toBeLessThan(1e-6);
    expect(largestDifference(got.grad, expected.grad)).toBeLessThan(1e-6);
  });

  test("values are as near to what they were as the code allows", () => {
    const [values, got] = [waves(R * C, 1.3), dequantised(ofKind(kind)).dataSync()];
    const error = Math.max(...values.map((value, i) => Math.abs(value - got[i]!)));
    // Half the widest step of NF4 times 0.1, and half of 0.1 / 127.
    expect(error).toBeLessThan(kind === "nf4" ? 0.0155 : 0.0004);
  });
});

test("int8 unpacks four codes of an int32, signs included", () => {
  const parts = int8Tensors({ codes: Int8Array.of(1, -1, 127, -127, 2, 0, -3, 4), scale: Float32Array.of(1, 0.5) }, 2);
  const matrix: Quantised = { shape: [2, 4], parts };
  expect([...dequantised(matrix).dataSync()]).toEqual([1, -1, 127, -127, 1, 0, -1.5, 2]);
  expect([...int8Rows(matrix, tf.tensor1d([1, 1], "int32")).dataSync()]).toEqual([1, 0, -1.5, 2, 1, 0, -1.5, 2]);
});

// Elements: all 24 rows in one part, and in parts of 10 that overlap.
describe.each([R * C, 10 * C])("a head in int8, at most %i elements at a time", (maxPart) => {
  test.each(["1", "0"])("has the logits and the gradient of its values, HEDDLE_JIT=%s", (HEDDLE_JIT) => {
    vi.stubEnv("HEDDLE_JIT", HEDDLE_JIT);
    const [hidden_WD, dRaw_WV] = [tf.tensor2d(waves(3 * C, 0.7), [3, C]), tf.tensor2d(waves(3 * R, 0.3), [3, R])];
    const embedding_VD = ofKind("int8");
    const values = dequantised(embedding_VD);
    const got = jit(() => ({
      logits: rawLogits({ hidden_WD, embedding_VD }, maxPart),
      gradient: hiddenGradient(dRaw_WV, { embedding_VD }, maxPart),
    }))();
    expect(largestDifference(got.logits, tf.matMul(hidden_WD, values, false, true))).toBeLessThan(1e-6);
    expect(largestDifference(got.gradient, tf.matMul(dRaw_WV, values))).toBeLessThan(1e-6);
  });
});

/** The same model with the values of its quantised matrices in float32. */
const valuesOf = (weights: Weights, config: ModelConfig): Weights =>
  Object.fromEntries(
    Object.keys(parameterShapes(config)).map((name) => {
      const matrix = matrixOf(weights, name);
      return [name, matrix instanceof tf.Tensor ? matrix : dequantised(matrix)];
    }),
  );

const ids = [2, 17, 99, 301, 5, 5, 250, 44, 131, 7, 380, 12];

function block(ids_M: tf.Tensor1D) {
  const M = ids_M.shape[0];
  const slot_M = tf.range(0, M, 1, "int32");
  return {
    ids_M,
    positions_M: slot_M,
    segments_M: tf.zeros<tf.Rank.R1>([M], "int32"),
    layout: { token_BT: slot_M.reshape([1, M]) as tf.Tensor2D, slot_M },
  };
}

describe.each(["nf4", "int8"] as const)("gemma2-tiny with its layers in %s and its embedding in int8", (kind) => {
  const storageOf = (name: string): Storage =>
    name === EMBEDDING ? "int8" : name.includes("_proj") ? kind : "float32";

  test.each(["1", "0"])(
    "computes what its values in float32 compute, in loops too, HEDDLE_JIT=%s",
    async (HEDDLE_JIT) => {
      vi.stubEnv("HEDDLE_JIT", HEDDLE_JIT);
      const dir = fixture("models/gemma2-tiny");
      const config = await readModelConfig(dir);
      const weights = await loadWeights(dir, config, storageOf);
      expect(Object.keys(weights).filter(isPart)).toHaveLength(kind === "nf4" ? 4 * 28 + 2 : 2 * 28 + 2);
      const input = block(tf.tensor1d(ids, "int32"));
      const inLoops = computedAs(config, { segments: [{ first: 0, count: 4 }] });
      const NORM = "model.layers.0.input_layernorm.weight";
      // A gradient that goes through all layers: of the first norm.
      const run = (weights: Weights, config: ModelConfig) =>
        jit((weights: Weights) => ({
          logits: logits(weights, config, hiddenStates(weights, config, input, null)),
          gradient: tf.grad((norm: tf.Tensor) =>
            hiddenStates({ ...weights, [NORM]: norm }, config, input, null)
              .square()
              .mean(),
          )(weights[NORM]!),
        }))(weights);
      const expected = run(valuesOf(weights, config), config);
      // What is not in loops is compiled below.
      for (const computed of HEDDLE_JIT === "1" ? [inLoops] : [config, inLoops]) {
        const got = run(weights, computed);
        expect(largestDifference(got.logits, expected.logits)).toBeLessThan(2e-5);
        expect(largestDifference(got.gradient, expected.gradient)).toBeLessThan(1e-5);
      }
    },
  );
});

describe.each(["gemma3-tiny-nf4", "gemma3-tiny-int8"])("%s, of bitsandbytes", (name) => {
  const dir = fixture(`models/${name}`);

  test("a matrix has the values of bitsandbytes, bit by bit where each op rounds", async () => {
    const config = await readModelConfig(dir);
    const [weights, golden] = [await loadWeights(dir, config), await readGolden(dir)];
    const matrix = matrixOf(weights, "model.layers.1.mlp.down_proj.weight") as Quantised;
    const expected = golden.down_proj!.dataSync();
    expect(dequantised(matrix).dataSync()).toEqual(expected);
    const compiled = jit(() => dequantised(matrix))().dataSync();
    expect(Math.max(...compiled.map((value, i) => Math.abs(value - expected[i]!)))).toBeLessThan(1e-7);
  });

  test.each(["1", "0"])("logits are those of transformers, HEDDLE_JIT=%s", async (HEDDLE_JIT) => {
    vi.stubEnv("HEDDLE_JIT", HEDDLE_JIT);
    const config = await readModelConfig(dir);
    const [weights, golden] = [await loadWeights(dir, config), await readGolden(dir)];
    const input = block(golden.ids!.reshape([-1]));
    const got = jit((weights: Weights) => logits(weights, config, forward(weights, config, input).hidden_MD))(weights);
    expect(largestDifference(got, golden.logits!)).toBeLessThan(5e-5);
  });
});
