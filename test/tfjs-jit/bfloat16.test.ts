import {
  bfloat16Tensor,
  cond,
  dynamicSlice,
  dynamicUpdateSlice,
  gatherRows,
  isBfloat16,
  jit,
  scan,
  switchCase,
  tf,
  toBfloat16,
  toFloat32,
  Variable,
  whileLoop,
} from "tfjs-jit";
import { describe, expect, test } from "vitest";

const values = (tensor: tf.Tensor) => [...tensor.dataSync()];
const scalar = (value: number): tf.Tensor => tf.scalar(value);

/** Op by op and compiled: the values, and in which of the two dtypes. */
function both(fn: (...x: tf.Tensor[]) => tf.Tensor, ...x: tf.Tensor[]): { dtype: string; values: number[] } {
  const [plain, compiled] = [fn(...x), jit(fn)(...x)].map((tensor) => ({
    dtype: isBfloat16(tensor) ? "bfloat16" : tensor.dtype,
    values: values(tensor),
  }));
  expect(compiled).toEqual(plain);
  return plain!;
}

/** The nearest bfloat16, ties to even: what must come out, by arithmetic on the bits of a float32. */
function round(value: number): number {
  const bits = new Uint32Array(Float32Array.of(value).buffer)[0]!;
  const rounded = (bits + 0x7fff + ((bits >>> 16) & 1)) & 0xffff0000;
  return new Float32Array(Uint32Array.of(rounded).buffer)[0]!;
}

describe("toBfloat16 and toFloat32", () => {
  test("round to nearest, ties to even, and back exactly", () => {
    const ulp = 2 ** -7;
    const x = [1 + ulp / 2, 1 + (3 * ulp) / 2, 1 + ulp / 2 + 2 ** -20, -1.001, 3e38, 1e-40];
    const expected = [1, 1 + 2 * ulp, 1 + ulp, -1, round(3e38), round(1e-40)];
    expect(x.map(round)).toEqual(expected);
    expect(both((x) => toBfloat16(x!), tf.tensor1d(x))).toEqual({ dtype: "bfloat16", values: expected });
    expect(both((x) => toFloat32(toBfloat16(x!)), tf.tensor1d(x))).toEqual({ dtype: "float32", values: expected });
  });

  test("keep infinities and NaN", () => {
    const x = tf.tensor1d([Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN]);
    expect(both((x) => toBfloat16(x!), x).values).toEqual(values(x));
  });

  test("take floats only", () => {
    expect(() => toBfloat16(tf.tensor1d([1, 2], "int32"))).toThrow(
      "toBfloat16: expected float32 or bfloat16, got int32[2]",
    );
    expect(() => toFloat32(tf.scalar(true, "bool"))).toThrow("toFloat32: expected float32 or bfloat16, got bool[]");
  });
});

describe("bfloat16Tensor", () => {
  test("takes the bits as they are, of Uint16Array and of bytes within a buffer", () => {
    const bits = new Uint16Array([0x3f80, 0x4000, 0xbf80, 0x4049]);
    const inMiddle = new Uint8Array(12);
    inMiddle.set(new Uint8Array(bits.buffer), 2);
    for (const given of [bits, inMiddle.subarray(2, 10)]) {
      const x = bfloat16Tensor(given, [2, 2]);
      expect(isBfloat16(x)).toBe(true);
      expect([x.shape, values(x)]).toEqual([
        [2, 2],
        [1, 2, -1, 3.140625],
      ]);
    }
  });

  test("needs 2 bytes an element", () => {
    expect(() => bfloat16Tensor(new Uint8Array(7), [2, 2])).toThrow("bfloat16Tensor: shape [2,2] needs 8 bytes, got 7");
  });
});

describe("a bfloat16 tensor", () => {
  test("counts 2 bytes an element, until it is disposed", () => {
    const { numBytes, numTensors } = tf.memory();
    const x = bfloat16Tensor(new Uint16Array(1000), [1000]);
    const clone = x.clone();
    expect(tf.memory().numBytes - numBytes).toBe(2 * 2000);
    tf.dispose([x, clone]);
    expect(tf.memory()).toMatchObject({ numBytes, numTensors });
  });

  test("leaves no cast behind where it meets float32", () => {
    const [x, w] = [tf.ones([2, 2]), toBfloat16(tf.ones([2, 2]))];
    const { numTensors, numBytes } = tf.memory();
    tf.tidy(() => tf.matMul(x, w).add(w.mul(2)).dataSync());
    expect(tf.memory()).toMatchObject({ numTensors, numBytes });
  });

  test("is float32 to tfjs, and stays what it is when cast to that", () => {
    const x = toBfloat16(tf.tensor1d([1, 2]));
    expect(x.dtype).toBe("float32");
    expect(isBfloat16(x.cast("float32"))).toBe(true);
    expect(both((x) => x!.cast("int32"), x)).toEqual({ dtype: "int32", values: [1, 2] });
  });
});

describe("ops of bfloat16", () => {
  const a = tf.tensor2d([0.3, -1.7, 2.2, 0.9, -0.4, 1.1], [2, 3]);
  const b = tf.tensor2d([1.3, 0.7, -0.2, 0.5, 2.4, -1.6], [2, 3]);
  const positive = a.abs().add(0.1);

  test.each<[string, (x: tf.Tensor, y: tf.Tensor) => tf.Tensor]>([
    ["add", (x, y) => x.add(y)],
    ["sub", (x, y) => x.sub(y)],
    ["mul", (x, y) => x.mul(y)],
    ["div", (x, y) => x.div(y)],
    ["maximum", (x, y) => x.maximum(y)],
    ["neg", (x) => x.neg()],
    ["square", (x) => x.square()],
    ["relu", (x) => x.relu()],
    ["reshape", (x) => x.reshape([3, 2])],
    ["transpose", (x) => x.transpose()],
    ["slice", (x) => x.slice([0, 1], [2, 2])],
    ["strided slice", (x) => x.stridedSlice([0, 0], [2, 3], [1, 2])],
    ["concat", (x, y) => tf.concat([x, y], 1)],
    ["stack", (x, y) => tf.stack([x, y])],
    ["unstack", (x) => tf.unstack(x)[1]!],
    ["split", (x) => tf.split(x, [1, 2], 1)[1]!],
    [
      "pad",
      (x) =>
        tf.pad(x, [
          [1, 0],
          [0, 1],
        ]),
    ],
    ["tile", (x) => x.tile([2, 1])],
    ["reverse", (x) => x.reverse(1)],
    ["expandDims", (x) => x.expandDims(1)],
    ["where", (x, y) => tf.where(x.greater(y), x, y)],
    ["sum", (x) => x.sum(1)],
    ["mean", (x) => x.mean()],
    ["max", (x) => x.max(0)],
    ["min", (x) => x.min()],
    ["topk", (x) => tf.topk(x, 2).values],
    ["zerosLike", (x) => tf.zerosLike(x)],
    ["onesLike", (x) => tf.onesLike(x)],
    ["clone", (x) => x.clone()],
    ["matMul", (x, y) => tf.matMul(x as tf.Tensor2D, y as tf.Tensor2D, false, true)],
    ["gatherRows", (x) => gatherRows(x, tf.tensor1d([1, 0, 1], "int32"))],
    ["dynamicSlice", (x) => dynamicSlice(x, [tf.scalar(1, "int32"), 0], [1, 2])],
    ["dynamicUpdateSlice", (x, y) => dynamicUpdateSlice(x, y.slice([0, 0], [1, 2]), [tf.scalar(1, "int32"), 1])],
  ])("%s: the exact result, rounded", (_, fn) => {
    const [x, y] = [a, b].map(toBfloat16) as [tf.Tensor, tf.Tensor];
    const exact = values(fn(toFloat32(x), toFloat32(y)));
    expect(both((x, y) => fn(x!, y!), x, y)).toEqual({ dtype: "bfloat16", values: exact.map(round) });
  });

  test.each<[string, (x: tf.Tensor) => tf.Tensor]>([
    ["exp", (x) => x.exp()],
    ["log", (x) => x.log()],
    ["sqrt", (x) => x.sqrt()],
    ["rsqrt", (x) => x.rsqrt()],
    ["tanh", (x) => x.tanh()],
    ["sigmoid", (x) => x.sigmoid()],
    ["pow", (x) => x.pow(1.5)],
    ["softmax", (x) => x.softmax()],
    ["logSoftmax", (x) => x.logSoftmax()],
    ["logSumExp", (x) => x.logSumExp(1)],
    ["elu", (x) => x.elu()],
    ["softplus", (x) => x.softplus()],
    ["erf", (x) => x.erf()],
    ["cos", (x) => x.cos()],
  ])("%s: within 2 units in the last place", (_, fn) => {
    const x = toBfloat16(positive);
    const exact = values(fn(toFloat32(x)));
    for (const run of [fn, jit(fn)]) {
      const result = run(x);
      expect(isBfloat16(result)).toBe(true);
      for (const [i, value] of values(result).entries())
        expect(Math.abs(value - exact[i]!)).toBeLessThan(2 ** -6 * Math.max(1, Math.abs(exact[i]!)));
    }
  });

  test("comparisons and positions are of the true values", () => {
    const [x, y] = [a, b].map(toBfloat16) as [tf.Tensor, tf.Tensor];
    expect(both((x, y) => x!.less(y!), x, y)).toEqual({ dtype: "bool", values: [1, 1, 0, 0, 1, 0] });
    expect(both((x) => x!.argMax(1), x)).toEqual({ dtype: "int32", values: [2, 2] });
  });

  test("sums are exact where there are many: 300 ones are 300, which 256 + 1 in bfloat16 never reaches", () => {
    const ones = toBfloat16(tf.ones([300]));
    expect(both((x) => x!.sum(), ones)).toEqual({ dtype: "bfloat16", values: [300] });
    expect(both((x) => tf.matMul(x!.reshape([1, 300]), x!.reshape([300, 1])), ones).values).toEqual([300]);
    expect(both((x) => x!.cumsum().slice(299, 1), ones)).toEqual({ dtype: "float32", values: [300] });
    const zeros = tf.zeros([300], "int32") as tf.Tensor1D;
    expect(both((x) => tf.unsortedSegmentSum(x!, zeros, 1), ones)).toEqual({ dtype: "float32", values: [300] });
  });
});

describe("bfloat16 with float32", () => {
  const third = tf.tensor2d([1 / 3, 2 / 3], [1, 2]);
  const w = toBfloat16(tf.tensor2d([1, 3], [2, 1]));

  test("computes in float32, as if the bfloat16 one were cast before", () => {
    const expected = { dtype: "float32", values: [Math.fround(Math.fround(1 / 3) + 3 * Math.fround(2 / 3))] };
    expect(both((x, w) => tf.matMul(x as tf.Tensor2D, w as tf.Tensor2D), third, w)).toEqual(expected);
    expect(both((x, w) => x!.transpose().mul(w!), third, w)).toEqual({
      dtype: "float32",
      values: [Math.fround(1 / 3), 2],
    });
    expect(both((x, w) => tf.concat([x!.reshape([2]), w!.reshape([2])]), third, w)).toEqual({
      dtype: "float32",
      values: [...values(third), 1, 3],
    });
  });

  test("a float32 scalar does not widen a tensor, but does a scalar", () => {
    expect(both((w) => w!.mul(1 / 3), w)).toEqual({
      dtype: "bfloat16",
      values: [round(1 / 3), round(3 * round(1 / 3))],
    });
    expect(both((w, s) => w!.add(s!), w, scalar(2))).toEqual({ dtype: "bfloat16", values: [3, 5] });
    expect(both((w) => w!.sum().mul(tf.scalar(1 / 3)), w)).toEqual({
      dtype: "float32",
      values: [Math.fround(4 * Math.fround(1 / 3))],
    });
  });
});

describe("gradients with bfloat16", () => {
  const x = tf.tensor2d([1.1, -0.3, 0.7, 2.3], [2, 2]);
  const w = tf.tensor2d([0.2, 0.9, -1.3, 0.4], [2, 2]);

  test("bfloat16 weights under float32 activations have the float32 gradient, unrounded", () => {
    const gradient = (x: tf.Tensor, w: tf.Tensor) =>
      tf.grad((w) =>
        tf
          .matMul(x as tf.Tensor2D, w as tf.Tensor2D)
          .square()
          .sum(),
      )(w);
    const rounded = toBfloat16(w);
    const expected = values(gradient(x, toFloat32(rounded)));
    expect(expected.some((value) => value !== round(value))).toBe(true);
    const got = both((x, w) => gradient(x!, w!), x, rounded);
    expect(got.dtype).toBe("float32");
    for (const [i, value] of got.values.entries()) expect(value).toBeCloseTo(expected[i]!, 5);
  });

  test("float32 weights that are cast have float32 gradients, though all is computed in bfloat16", () => {
    const gradient = (x: tf.Tensor, w: tf.Tensor) =>
      tf.grad((w) => tf.matMul(toBfloat16(x) as tf.Tensor2D, toBfloat16(w) as tf.Tensor2D).sum())(w);
    // x^T 1: its columns' sums, in bfloat16.
    const sums = [round(round(1.1) + round(0.7)), round(round(-0.3) + round(2.3))] as const;
    expect(both((x, w) => gradient(x!, w!), x, w).dtype).toBe("float32");
    for (const [i, value] of both((x, w) => gradient(x!, w!), x, w).values.entries())
      expect(Math.abs(value - sums[i >> 1]!)).toBeLessThanOrEqual(2 ** -7);
  });

  test("what computes in bfloat16 has bfloat16 gradients, between casts and through products", () => {
    const seen: boolean[] = [];
    const watch = tf.customGrad((h) => ({
      value: (h as tf.Tensor).clone(),
      gradFunc: (dy: tf.Tensor) => {
        seen.push(isBfloat16(dy));
        return dy;
      },
    }));
    const loss = (x: tf.Tensor, w: tf.Tensor) => {
      const h = watch(tf.matMul(toBfloat16(x) as tf.Tensor2D, toBfloat16(w) as tf.Tensor2D));
      return toFloat32(watch(h.mul(h.tanh()).add(h).mul(0.5)))
        .square()
        .sum() as tf.Scalar;
    };
    for (const run of [tf.grads(loss), jit((x: tf.Tensor[]) => tf.grads(loss)(x))]) {
      seen.length = 0;
      expect(run([x, w]).map(isBfloat16)).toEqual([false, false]);
      expect(seen).toEqual([true, true]);
    }
  });

  test("of slices and rows have the dtype that flows; rows are added up in float32", () => {
    const t = toBfloat16(tf.tensor2d([1, 2, 3, 4], [2, 2]));
    const many = tf.zeros([300], "int32");
    expect(both((t) => tf.grad((t) => dynamicSlice(t, [1, 0], [1, 2]).sum())(t!), t).values).toEqual([0, 0, 1, 1]);
    expect(both((t) => tf.grad((t) => gatherRows(t, many).sum())(t!), t)).toEqual({
      dtype: "float32",
      values: [300, 300, 0, 0],
    });
  });

  test("by finite differences: of a float32 function of bfloat16 weights", () => {
    const loss = (w: tf.Tensor) =>
      tf
        .matMul(x, w as tf.Tensor2D)
        .tanh()
        .sum();
    const at = values(toBfloat16(w));
    const differences = at.map((value, i) => {
      const [up, down] = [2 ** -5, -(2 ** -5)].map((h) => values(loss(tf.tensor2d(at.with(i, value + h), [2, 2])))[0]!);
      return (up! - down!) / 2 ** -4;
    });
    for (const run of [tf.grad(loss), jit((w: tf.Tensor) => tf.grad(loss)(w))])
      for (const [i, value] of values(run(toBfloat16(w))).entries()) expect(value).toBeCloseTo(differences[i]!, 2);
  });
});

describe("bfloat16 in jit", () => {
  test("compiles its own program, and passes in and out", () => {
    const f = jit((x: tf.Tensor) => x.add(1));
    const x = tf.tensor1d([1, 2]);
    expect([f(x), f(toBfloat16(x)), f(x), f(toBfloat16(x))].map(isBfloat16)).toEqual([false, true, false, true]);
    expect(f.programs).toBe(2);
  });

  test("is looked up outside, and is told inside", () => {
    const w = toBfloat16(tf.tensor1d([1, 2]));
    const kinds: boolean[] = [];
    const f = jit((x: tf.Tensor) => {
      kinds.push(isBfloat16(x), isBfloat16(w), isBfloat16(w.mul(x)));
      return x.mul(w);
    });
    expect(values(f(tf.tensor1d([3, 4])))).toEqual([3, 8]);
    expect(kinds).toEqual([false, true, false]);
  });

  test("in whileLoop, cond, switchCase and scan", () => {
    const x = toBfloat16(tf.tensor1d([1, 2, 3]));
    const doubled = (x: tf.Tensor) =>
      whileLoop(
        ({ i }) => i.less(3),
        ({ i, x }) => ({ i: i.add(1), x: x.mul(2) }),
        { i: scalar(0), x },
      ).x;
    expect(both((x) => doubled(x!), x)).toEqual({ dtype: "bfloat16", values: [8, 16, 24] });
    const chosen = (x: tf.Tensor) =>
      cond(
        x.sum().greater(0),
        () => x.neg(),
        () => x,
      );
    expect(both((x) => chosen(x!), x)).toEqual({ dtype: "bfloat16", values: [-1, -2, -3] });
    const second = (x: tf.Tensor) => switchCase(tf.scalar(1, "int32"), [() => x, () => x.add(x)]);
    expect(both((x) => second(x!), x)).toEqual({ dtype: "bfloat16", values: [2, 4, 6] });
    const sums = (x: tf.Tensor) => scan((c: tf.Tensor, r: tf.Tensor) => [c.add(r), c], toBfloat16(scalar(0)), x);
    expect(both((x) => sums(x!)[0], x)).toEqual({ dtype: "bfloat16", values: [6] });
    expect(both((x) => sums(x!)[1], x)).toEqual({ dtype: "bfloat16", values: [0, 1, 3] });
  });

  test("scan: stacked bfloat16 weights, float32 activations and a float32 tensor from outside", () => {
    const ws = toBfloat16(tf.tensor3d([0.5, -0.2, 0.3, 0.1, 0.7, 0.6, -0.4, 0.9], [2, 2, 2]));
    const loss = (ws: tf.Tensor, u: tf.Tensor) =>
      scan(
        (h: tf.Tensor, w: tf.Tensor) => [
          tf
            .matMul(h as tf.Tensor2D, w as tf.Tensor2D)
            .mul(u)
            .tanh(),
          null,
        ],
        tf.tensor2d([1 / 3, -0.7], [1, 2]),
        ws,
      )[0].sum() as tf.Scalar;
    const u = tf.tensor1d([0.9, 1.2]);
    const plain = tf
      .grads(loss)([toFloat32(ws), u])
      .map(values);
    for (const run of [tf.grads(loss), jit((x: tf.Tensor[]) => tf.grads(loss)(x))]) {
      const gradients = run([ws, u]);
      expect(gradients.map(isBfloat16)).toEqual([false, false]);
      for (const [k, gradient] of gradients.entries())
        for (const [i, value] of values(gradient).entries()) expect(value).toBeCloseTo(plain[k]![i]!, 5);
    }
  });

  test("scan: a bfloat16 carry has a bfloat16 gradient, and sums over rows are float32", () => {
    const loss = (h: tf.Tensor, u: tf.Tensor) =>
      toFloat32(
        scan((c: tf.Tensor, r: tf.Tensor) => [c.add(r.mul(u)), null], h, toBfloat16(tf.ones([300, 2])))[0],
      ).sum();
    const u = toBfloat16(tf.tensor1d([2 ** -7, 2 ** -7]));
    const h = toBfloat16(tf.zeros([2]));
    const [dh, du] = jit((h: tf.Tensor, u: tf.Tensor) => tf.grads((h, u) => loss(h, u) as tf.Scalar)([h, u]))(h, u) as [
      tf.Tensor,
      tf.Tensor,
    ];
    expect([isBfloat16(dh), values(dh)]).toEqual([true, [1, 1]]);
    expect([isBfloat16(du), values(du)]).toEqual([false, [300, 300]]);
  });

  test("a loop that widens its state says so", () => {
    const f = jit(
      (x: tf.Tensor, w: tf.Tensor) =>
        whileLoop(
          ({ x }) => x.sum().less(9),
          ({ x }) => ({ x: x.mul(w) }),
          { x },
        ).x,
      { name: "widens" },
    );
    expect(() => f(toBfloat16(tf.ones([2])), tf.tensor1d([2, 2]))).toThrow(
      "jit(widens): whileLoop: x bfloat16[2] on entry, but x float32[2] after the body; shapes and dtypes must agree",
    );
  });
});

describe("a bfloat16 Variable", () => {
  test("keeps the dtype it was made with, read eagerly and compiled", () => {
    const v = new Variable(toBfloat16(tf.tensor1d([1 / 3, 2])));
    expect([v.dtype, isBfloat16(v), isBfloat16(v.read()), values(v.read())]).toEqual([
      "float32",
      true,
      true,
      [round(1 / 3), 2],
    ]);
    const f = jit((x: tf.Tensor) => {
      v.assign(v.read().add(x));
      return v.read();
    });
    expect(values(f(toBfloat16(tf.tensor1d([1, 1]))))).toEqual([round(round(1 / 3) + 1), 3]);
    expect(isBfloat16(v.read())).toBe(true);
    const g = jit((w: Variable) => w.read());
    expect(isBfloat16(g(v))).toBe(true);
    expect(isBfloat16(g(new Variable(tf.zeros([2]))))).toBe(false);
    expect(g.programs).toBe(2);
    v.dispose();
  });

  test("takes no float32, and a float32 one no bfloat16", () => {
    const [v, w] = [new Variable(toBfloat16(tf.zeros([2]))), new Variable(tf.zeros([2]))];
    expect(() => v.assign(tf.zeros([2]))).toThrow(
      "Variable.assign: expected bfloat16[2], got float32[2]; cast it with toBfloat16",
    );
    expect(() => w.assign(toBfloat16(tf.zeros([2])))).toThrow(
      "Variable.assign: expected float32[2], got bfloat16[2]; cast it with toFloat32",
    );
    expect(() => v.assign(tf.zeros([3]))).toThrow("Variable.assign: expected bfloat16[2], got float32[3]");
  });
});
