import { eachOf, jit, scan, tf, Variable, whileLoop } from "tfjs-jit";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { native } from "../../tfjs-jit/src/native.js";

const values = (tensor: tf.Tensor) => [...tensor.dataSync()];
const scalar = (value: number): tf.Tensor => tf.scalar(value);

/** What fn gives op by op; compiled it must be the same. */
function both(fn: (...x: tf.Tensor[]) => tf.Tensor[], ...x: tf.Tensor[]): number[][] {
  const plain = fn(...x).map(values);
  const compiled = jit(fn)(...x).map(values);
  expect(compiled.length).toBe(plain.length);
  for (const [i, numbers] of compiled.entries())
    for (const [j, number] of numbers.entries()) expect(number).toBeCloseTo(plain[i]![j]!, 5);
  return plain;
}

/** Central differences of a scalar function, at each element of each x. */
function differences(fn: (...x: tf.Tensor[]) => tf.Tensor, ...x: tf.Tensor[]): number[][] {
  const h = 1e-2;
  return x.map((tensor, k) =>
    values(tensor).map((_, i) => {
      const [up, down] = [h, -h].map((step) => {
        const moved = tf.buffer(tensor.shape, "float32", Float32Array.from(values(tensor)));
        moved.values[i]! += step;
        return values(fn(...x.map((other, j) => (j === k ? moved.toTensor() : other))))[0]!;
      });
      return (up! - down!) / (2 * h);
    }),
  );
}

function expectClose(got: readonly number[][], expected: readonly number[][], digits: number): void {
  for (const [i, numbers] of expected.entries())
    for (const [j, number] of numbers.entries()) expect(got[i]![j]!).toBeCloseTo(number, digits);
}

describe("scan", () => {
  test("gives the last carry and the ys stacked: sums of 1, 2, 3, 4", () => {
    const sums = (x: tf.Tensor) => scan((sum: tf.Tensor, row: tf.Tensor) => [sum.add(row), sum.add(row)], scalar(0), x);
    expect(both((x) => sums(x!), tf.tensor1d([1, 2, 3, 4]))).toEqual([[10], [1, 3, 6, 10]]);
  });

  test("in reverse it begins with the last row, and a y stays in the row of its x", () => {
    const sums = (x: tf.Tensor) =>
      scan((sum: tf.Tensor, row: tf.Tensor) => [sum.add(row), sum.add(row)], scalar(0), x, { reverse: true });
    expect(both((x) => sums(x!), tf.tensor1d([1, 2, 3, 4]))).toEqual([[10], [10, 9, 7, 4]]);
  });

  test("carry, x and y nest, of any dtype, and y may hold null", () => {
    const f = (a: tf.Tensor, b: tf.Tensor) => {
      const [carry, y] = scan(
        ({ n, sum }: { n: tf.Tensor; sum: tf.Tensor[] }, { a, b }: { a: tf.Tensor; b: tf.Tensor }) => [
          { n: n.add(b), sum: [sum[0]!.add(a.mul(b.cast("float32")))] },
          { isEven: b.mod(tf.scalar(2, "int32")).equal(tf.scalar(0, "int32")), none: null, twice: [a.mul(2)] },
        ],
        { n: tf.scalar(0, "int32") as tf.Tensor, sum: [tf.zeros([2])] },
        { a, b },
      );
      expect(y.none).toBe(null);
      return [carry.n, carry.sum[0]!, y.isEven, y.twice[0]!];
    };
    const a = tf.tensor2d([1, 2, 3, 4, 5, 6], [3, 2]);
    const b = tf.tensor1d([1, 2, 3], "int32");
    expect(both((x, y) => f(x!, y!), a, b)).toEqual([[6], [1 + 6 + 15, 2 + 8 + 18], [0, 1, 0], [2, 4, 6, 8, 10, 12]]);
  });

  test("with null for y it is a loop", () => {
    const f = (x: tf.Tensor) => scan((c: tf.Tensor, row: tf.Tensor) => [c.mul(row), null], scalar(1), x)[0];
    expect(both((x) => [f(x!)], tf.tensor1d([1, 2, 3, 4]))).toEqual([[24]]);
  });

  test("fn may refer to arguments, eager tensors and Variables, and rows of the same xs", () => {
    const eager = scalar(100);
    const variable = new Variable(scalar(1000));
    const f = (x: tf.Tensor, c: tf.Tensor) => [
      scan(
        (sum: tf.Tensor, row: tf.Tensor) => [sum.add(row).add(x.sum()).add(c).add(eager).add(variable.read()), null],
        scalar(0),
        x,
      )[0],
    ];
    expect(both((x, c) => f(x!, c!), tf.tensor1d([1, 2]), scalar(10))).toEqual([[3 + 6 + 20 + 200 + 2000]]);
    variable.dispose();
  });

  test("works in the body of whileLoop, and within scan", () => {
    const sum = (x: tf.Tensor) => scan((c: tf.Tensor, row: tf.Tensor) => [c.add(row), null], scalar(0), x)[0];
    const f = (x: tf.Tensor) => [
      whileLoop(
        ({ i }) => i.less(3),
        ({ i, s }) => ({ i: i.add(1), s: s.add(sum(x.mul(i))) }),
        { i: scalar(0), s: scalar(0) },
      ).s,
      scan((c: tf.Tensor, row: tf.Tensor) => [c.add(sum(row.mul(x))), null], scalar(0), x)[0],
    ];
    expect(both((x) => f(x!), tf.tensor1d([1, 2, 3]))).toEqual([[(0 + 1 + 2) * 6], [36]]);
  });
});

describe("the gradient of scan", () => {
  // h <- tanh(h w + x), y = v h: what each of h0, w, v and the xs does to the sum of weighted ys and of the last h.
  const x = tf.tensor2d([0.1, -0.2, 0.3, 0.4, -0.5, 0.6], [3, 2]);
  const h = tf.tensor1d([0.2, -0.1]);
  const w = tf.tensor2d([0.5, -0.3, 0.2, 0.7], [2, 2]);
  const v = tf.tensor1d([1.5, -0.5]);
  const weights = tf.tensor2d([1, 2, 3, 4, 5, 6], [3, 2]);
  const loss = (h0: tf.Tensor, xs: tf.Tensor, w: tf.Tensor, v: tf.Tensor) => {
    const [last, ys] = scan(
      (h: tf.Tensor, x: tf.Tensor) => {
        const next = tf
          .matMul(h.reshape([1, 2]), w as tf.Tensor2D)
          .reshape([2])
          .add(x)
          .tanh();
        return [next, next.mul(v)];
      },
      h0,
      xs,
    );
    return ys.mul(weights).sum().add(last.square().sum()) as tf.Scalar;
  };

  test("flows to init, xs, and tensors from outside: as finite differences say", () => {
    const gradients = both((...x) => tf.grads((h, xs, w, v) => loss(h, xs, w, v))(x), h, x, w, v);
    expectClose(gradients, differences(loss as (...x: tf.Tensor[]) => tf.Tensor, h, x, w, v), 2);
  });

  test("through a clone that fn makes of a tensor from outside, and keeps that tensor until then", () => {
    const f = (x: tf.Tensor, w: tf.Tensor) =>
      tf.grad((w: tf.Tensor) =>
        tf.tidy(() => {
          const outer = w.mul(2);
          const step = (c: tf.Tensor, row: tf.Tensor) => [c.add(row.mul(outer.clone())), null] as const;
          return scan(step, scalar(0), x)[0].square() as tf.Scalar;
        }),
      )(w);
    // (2 w (1 + 2 + 3))^2 = 144 w^2
    expect(both((x, w) => [f(x!, w!)], tf.tensor1d([1, 2, 3]), scalar(5))).toEqual([[288 * 5]]);
  });

  test("only to what is asked", () => {
    const all = both((...x) => tf.grads((h, xs, w, v) => loss(h, xs, w, v))(x), h, x, w, v);
    for (let k = 0; k < 4; k++) {
      const one = (...x: tf.Tensor[]) => [
        tf.grad((t) => {
          const [h, xs, w, v] = x.map((other, j) => (j === k ? t : other));
          return loss(h!, xs!, w!, v!);
        })(x[k]!),
      ];
      expectClose(both(one, h, x, w, v), [all[k]!], 5);
    }
  });

  test("to what is made outside the loop from what is asked, also in a scope that has ended", () => {
    const f = (a: tf.Tensor) =>
      tf.grad((a) =>
        tf
          .tidy(() => {
            const twice = a.mul(2);
            return scan((c: tf.Tensor, x: tf.Tensor) => [c.mul(twice).add(x), null], scalar(1), tf.ones([3]))[0];
          })
          .square(),
      )(a);
    // c = b^3 + b^2 + b + 1 at b = 2a = 2, and of c^2 by a: 2 c (3 b^2 + 2 b + 1) 2.
    expect(both((a) => [f(a!)], scalar(1))).toEqual([[2 * 15 * (12 + 4 + 1) * 2]]);
  });

  test("by rows of one number, which are made in the loop", () => {
    const products = (value: tf.Tensor) =>
      tf.grad((x: tf.Tensor) => scan((c: tf.Tensor, x) => [c.add(x.mul(c)), x.sum()], value, x)[0].sum())(
        tf.fill([3, 2], 1),
      );
    // c = v (1 + x0) (1 + x1) (1 + x2), x = 1: dc/dx = 4 v.
    expect(both((v) => [products(v!)], tf.tensor1d([1, 3]))).toEqual([[4, 12, 4, 12, 4, 12]]);
  });

  test("of a scan whose carry is empty: the rows each by itself", () => {
    const f = (x: tf.Tensor) => [tf.grad((x) => scan((_, row: tf.Tensor) => [[], row.square()], [], x)[1].sum())(x)];
    expect(both((x) => f(x!), tf.tensor1d([1, 2, 3]))).toEqual([[2, 4, 6]]);
  });

  test("passes by int32 and bool tensors of carry, xs and y", () => {
    const f = (x: tf.Tensor) =>
      tf.grad((x) => {
        const [{ sum }, y] = scan(
          ({ n, odd, sum }: { n: tf.Tensor; odd: tf.Tensor; sum: tf.Tensor }, r: { x: tf.Tensor; i: tf.Tensor }) => [
            { n: n.add(r.i), odd: odd.logicalNot(), sum: sum.add(tf.where(odd, r.x.mul(n.cast("float32")), r.x)) },
            { n, x: r.x.square() },
          ],
          { n: tf.scalar(1, "int32") as tf.Tensor, odd: tf.scalar(true, "bool") as tf.Tensor, sum: scalar(0) },
          { x, i: tf.tensor1d([1, 2, 3], "int32") },
        );
        return sum.add(y.x.sum());
      })(x);
    // n is 1, 2, 4 and odd in rows 0 and 2: x0 + x1 + 4 x2 + the squares.
    expect(both((x) => [f(x!)], tf.tensor1d([5, 6, 7]))).toEqual([[1 + 10, 1 + 12, 4 + 14]]);
  });

  test("of scan in scan, and of both by a tensor from outside both", () => {
    const f = (xs: tf.Tensor, w: tf.Tensor) =>
      scan(
        (c: tf.Tensor, row: tf.Tensor) => {
          const [inner, squares] = scan((d: tf.Tensor, x: tf.Tensor) => [d.mul(w).add(x).sin(), x.mul(d)], c, row);
          return [inner.mul(w), squares.sum()];
        },
        scalar(0.5),
        xs,
      );
    const loss = (xs: tf.Tensor, w: tf.Tensor) => {
      const [c, y] = f(xs, w);
      return c.square().add(y.sum()) as tf.Scalar;
    };
    const xs = tf.tensor2d([0.3, -0.4, 0.5, 0.6], [2, 2]);
    const gradients = both((...x) => tf.grads(loss)(x), xs, scalar(0.8));
    expectClose(gradients, differences(loss as (...x: tf.Tensor[]) => tf.Tensor, xs, scalar(0.8)), 3);
  });

  test("has a gradient itself: the second derivative of x^4 at 3 is 108", () => {
    const fourth = (x: tf.Tensor) =>
      scan((c: tf.Tensor, _: tf.Tensor) => [c.mul(x), null], scalar(1), tf.range(0, 4, 1, "int32"))[0];
    expect(both((x) => [tf.grad(tf.grad(fourth))(x!)], scalar(3))).toEqual([[12 * 9]]);
  });

  test("taken inside the body of a loop and of a scan", () => {
    const step = (at: tf.Tensor, xs: tf.Tensor) =>
      at.sub(
        tf
          .grad((y) => scan((c: tf.Tensor, x: tf.Tensor) => [c.add(y.sub(x).square()), null], scalar(0), xs)[0])(at)
          .mul(0.1),
      );
    const xs = tf.tensor1d([2, 3, 4]);
    const f = (xs: tf.Tensor) => [
      whileLoop(
        ({ i }) => i.less(20),
        ({ i, at }) => ({ i: i.add(1), at: step(at, xs) }),
        { i: scalar(0), at: scalar(0) },
      ).at,
      scan((at: tf.Tensor, _: tf.Tensor) => [step(at, xs), null], scalar(0), tf.range(0, 20, 1, "int32"))[0],
    ];
    expectClose(
      both((x) => f(x!), xs),
      [[3], [3]],
      4,
    );
  });
});

/** How many ops of each type are recorded while `body` runs. */
function opsRecorded(body: () => void): Map<string, number> {
  const counts = new Map<string, number>();
  const { graphOp } = native;
  native.graphOp = (graph, type, ...rest) => {
    counts.set(type, (counts.get(type) ?? 0) + 1);
    return graphOp(graph, type, ...rest);
  };
  try {
    body();
  } finally {
    native.graphOp = graphOp;
  }
  return counts;
}

describe("the size of scan", () => {
  const train = (rows: number, isTrained: boolean) => {
    const f = jit((x: tf.Tensor, ws: tf.Tensor, u: tf.Tensor) => {
      const loss = (x: tf.Tensor, ws: tf.Tensor, u: tf.Tensor) =>
        scan(
          (h: tf.Tensor, w: tf.Tensor) => [
            tf.matMul(tf.matMul(h as tf.Tensor2D, w as tf.Tensor2D).tanh(), u as tf.Tensor2D),
            null,
          ],
          x,
          ws,
        )[0].sum() as tf.Scalar;
      return isTrained ? tf.grads(loss)([x, ws, u]) : [tf.grad((x) => loss(x, ws, u))(x)];
    });
    return opsRecorded(() => tf.dispose(f(tf.ones([2, 4]), tf.ones([rows, 4, 4]), tf.ones([4, 4]))));
  };

  test("does not grow with the rows, its gradient neither", () => {
    expect(train(26, true)).toEqual(train(4, true));
  });

  test("does not have a gradient that nothing was asked of", () => {
    const products = (isTrained: boolean) => train(3, isTrained).get("BatchMatMulV2")!;
    // Forward, and again: two each. Backward: two by the carry, and with weights two more.
    expect([products(true), products(false)]).toEqual([8, 6]);
  });
});

describe("errors of scan", () => {
  const add = (c: tf.Tensor, x: tf.Tensor): readonly [tf.Tensor, null] => [c.add(x), null];
  const inJit = (fn: () => unknown) => () => jit(fn, { name: "f" })();

  test("xs of no rows, of different numbers of rows, and without a tensor", () => {
    expect(() => scan(add, scalar(0), scalar(1))).toThrow(
      "scan: the tensors of xs must have one number of rows, at least 1; got float32[]",
    );
    const xs = { a: tf.ones([2, 3]), b: [tf.ones([3])] };
    expect(inJit(() => scan((c: tf.Tensor, _) => [c, null], scalar(0), xs))).toThrow(
      "jit(f): scan: the tensors of xs must have one number of rows, at least 1; got a float32[2,3], b[0] float32[3]",
    );
    expect(() => scan((c: tf.Tensor, _) => [c, null], scalar(0), [])).toThrow(
      'scan: xs has no tensor; for n iterations pass tf.range(0, n, 1, "int32")',
    );
  });

  test("a carry that changes, and what is no [carry, y]", () => {
    const grow = () =>
      scan(
        (c: { h: tf.Tensor }, x: tf.Tensor) => [{ h: tf.concat([c.h, x]) }, null],
        { h: tf.ones([1]) },
        tf.ones([2, 1]),
      );
    expect(grow).toThrow("scan: h float32[1] on entry, but h float32[2] after fn; shapes and dtypes must agree");
    expect(inJit(grow)).toThrow(
      "jit(f): scan: h float32[1] on entry, but h float32[2] after fn; shapes and dtypes must agree",
    );
    const odd = ((c: tf.Tensor) => c) as unknown as typeof add;
    expect(() => scan(odd, scalar(0), tf.ones([2]))).toThrow(
      "scan: fn must give [carry, y]; where there is no y, [carry, null]",
    );
    expect(() => scan((c: tf.Tensor, _) => [c, { loss: 3 }], scalar(0), tf.ones([2]))).toThrow(
      "scan: y: loss is a number; expected a tensor",
    );
  });
});

describe("memory of scan", () => {
  beforeEach(() => tf.engine().startScope());
  afterEach(() => tf.engine().endScope());

  test.each([
    ["compiled", (f: (x: tf.Tensor) => tf.Tensor) => jit(f)],
    ["op by op", (f: (x: tf.Tensor) => tf.Tensor) => f],
  ])("calls leave what they gave alone, %s", (_, wrap) => {
    const f = wrap((x: tf.Tensor) =>
      tf.tidy(() =>
        tf.grad((x) =>
          tf.tidy(() => scan((c: tf.Tensor, r: tf.Tensor) => [c.add(r.square()), r], tf.zeros([2]), x)[0].sum()),
        )(x),
      ),
    );
    const x = tf.ones([3, 2]);
    f(x).dispose();
    const before = [tf.memory().numTensors, native.getNumOfTensors()];
    for (let i = 0; i < 5; i++) f(x).dispose();
    expect([tf.memory().numTensors, native.getNumOfTensors()]).toEqual(before);
  });
});

describe("scan over a list of tensors, which are not stacked", () => {
  const rows = (a: tf.Tensor, b: tf.Tensor, c: tf.Tensor) => [a, b, c];
  const list = [tf.tensor1d([1, 2]), tf.tensor1d([3, -4]), tf.tensor1d([0.5, 6])] as const;
  // c <- c x + n, y = x^2
  const run = (xs: readonly tf.Tensor[], reverse: boolean) =>
    scan(
      (c: tf.Tensor, { x, n }) => [c.mul(x).add(n), x.square()],
      tf.tensor1d([1, 1]),
      { x: eachOf(xs), n: tf.tensor1d([10, 20, 30]) },
      { reverse },
    );

  test.each([false, true])("is that over the stacked ones; reverse: %s", (reverse) => {
    const [c, ys] = both((a, b, c) => run(rows(a!, b!, c!), reverse), ...list);
    const forward = [((1 * 1 + 10) * 3 + 20) * 0.5 + 30, ((1 * 2 + 10) * -4 + 20) * 6 + 30];
    const backward = [((1 * 0.5 + 30) * 3 + 20) * 1 + 10, ((1 * 6 + 30) * -4 + 20) * 2 + 10];
    expect(c).toEqual(reverse ? backward : forward);
    expect(ys).toEqual([1, 4, 9, 16, 0.25, 36]);
  });

  test("has a gradient by each tensor of the list, and by those alone that it is asked of", () => {
    const loss = (...xs: tf.Tensor[]) => {
      const [c, ys] = run(xs, false);
      return c.sum().add(ys.sum()) as tf.Scalar;
    };
    const gradients = both((...xs) => tf.grads(loss)(xs), ...list);
    // c = ((c0 a + 10) b + 20) d + 30: dc/da = c0 b d, dc/db = (c0 a + 10) d, dc/dd = (c0 a + 10) b + 20; and 2 x of y.
    expectClose(
      gradients,
      [
        [3 * 0.5 + 2, -4 * 6 + 4],
        [11 * 0.5 + 6, 12 * 6 - 8],
        [11 * 3 + 20 + 1, 12 * -4 + 20 + 12],
      ],
      4,
    );
    const second = both((a, b, c) => [tf.grad((x) => loss(a!, x, c!))(b!)], ...list);
    expectClose(second, [gradients[1]!], 5);
  });

  test("and over stacks may have one row", () => {
    const loss = (x: tf.Tensor, w: tf.Tensor) =>
      scan((c: tf.Tensor, { x, w }) => [c.mul(x).mul(w), null], scalar(2), { x, w: eachOf([w]) })[0] as tf.Scalar;
    expect(both((x, w) => tf.grads(loss)([x!, w!]), tf.tensor1d([3]), scalar(5))).toEqual([[10], [6]]);
  });

  test("of eleven tensors takes each in its turn", () => {
    const eleven = Array.from({ length: 11 }, (_, i) => scalar(i));
    const number = (reverse: boolean) => (xs: tf.Tensor[]) =>
      scan((c: tf.Tensor, x) => [c.mul(0.5).add(x), x.square()], scalar(0), eachOf(xs), { reverse });
    for (const reverse of [false, true]) {
      const halves = eleven.map((_, i) => i * 0.5 ** (reverse ? i : 10 - i)).reduce((a, b) => a + b);
      const [c, ys] = both((...xs) => number(reverse)(xs), ...eleven);
      expect(c![0]).toBeCloseTo(halves, 5);
      expect(ys).toEqual([0, 1, 4, 9, 16, 25, 36, 49, 64, 81, 100]);
    }
    const last = (...xs: tf.Tensor[]) => number(false)(xs)[0] as tf.Scalar;
    expect(both((...xs) => tf.grads(last)(xs), ...eleven)).toEqual(eleven.map((_, i) => [0.5 ** (10 - i)]));
  });

  test("does not hand each of n tensors to n branches", () => {
    const placeholder = vi.spyOn(native, "graphPlaceholder");
    const list = Array.from({ length: 128 }, () => scalar(1));
    jit(() => scan((c: tf.Tensor, x) => [c.add(x), null], scalar(0), eachOf(list)))();
    expect(placeholder.mock.calls.length).toBeLessThan(128 ** 2 / 4);
    placeholder.mockRestore();
  });

  test("needs one shape and dtype, and a tensor or a list at each leaf", () => {
    expect(() => eachOf([tf.tensor1d([1, 2]), tf.tensor1d([1])])).toThrow(
      "eachOf: the tensors must agree in shape and dtype, got float32[2] and float32[1]",
    );
    const over = (xs: unknown) => () => scan((c: tf.Tensor) => [c, null], scalar(0), xs);
    expect(over({ w: eachOf(list), n: tf.tensor1d([1]) })).toThrow(
      "scan: the tensors of xs must have one number of rows, at least 1; got w eachOf 3 float32[2], n float32[1]",
    );
    expect(over({ w: [3] })).toThrow("scan: xs: w[0] is a number; expected a tensor or eachOf(tensors)");
  });
});
