import { cond, jit, onCompile, optimizationBarrier, switchCase, tf, Variable, whileLoop } from "tfjs-jit";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { native } from "../../tfjs-jit/src/native.js";

/** tf.scalar, as any tensor: a loop variable of type Scalar could not become what an op gives. */
const scalar = (value: number, dtype?: tf.DataType): tf.Tensor => tf.scalar(value, dtype);

const values = (tensor: tf.Tensor) => [...tensor.dataSync()];

/** Runs `body` with every call op by op. */
function withoutJit<T>(body: () => T): T {
  process.env.HEDDLE_JIT = "0";
  try {
    return body();
  } finally {
    delete process.env.HEDDLE_JIT;
  }
}

describe("jit", () => {
  test("gives what the function gives, op by op and compiled", () => {
    const f = (x: tf.Tensor, w: tf.Tensor) => tf.tanh(tf.matMul(x as tf.Tensor2D, w as tf.Tensor2D)).sum();
    const x = tf.tensor2d([1, 2, 3, 4], [2, 2]);
    const w = tf.tensor2d([0.1, -0.2, 0.3, 0.4], [2, 2]);
    const expected = Math.tanh(0.7) + Math.tanh(0.6) + Math.tanh(1.5) + Math.tanh(1.0);
    expect(values(jit(f)(x, w))[0]).toBeCloseTo(expected, 5);
    expect(values(withoutJit(() => jit(f)(x, w)))[0]).toBeCloseTo(expected, 5);
  });

  test("records an op on the same tensors once, but a barrier each time", () => {
    const graphOp = vi.spyOn(native, "graphOp");
    const f = jit((x: tf.Tensor) => {
      const [a, b] = [x.mul(2).sqrt(), x.mul(2).sqrt()];
      return [a.add(b), ...optimizationBarrier([x]), ...optimizationBarrier([x])];
    });
    expect(f(tf.tensor1d([2, 8])).map(values)).toEqual([
      [4, 8],
      [2, 8],
      [2, 8],
    ]);
    const types = graphOp.mock.calls.map(([, type]) => type).filter((type) => type !== "Identity");
    graphOp.mockRestore();
    expect(types).toEqual(["Mul", "Sqrt", "Add", "XlaOptimizationBarrier", "XlaOptimizationBarrier"]);
  });

  test("tells constants apart by shape, dtype and sign of zero", () => {
    const f = jit((x: tf.Tensor) => [x.div(scalar(0)), x.div(scalar(-0)), x.add(tf.tensor1d([0])), x.less(1)]);
    expect(f(scalar(1)).map(({ shape }) => shape)).toEqual([[], [], [1], []]);
    expect(f(scalar(1)).map(values)).toEqual([[Infinity], [-Infinity], [1], [0]]);
  });

  test("takes and gives nested arrays and objects, and keeps what is no tensor", () => {
    const f = jit((args: { pair: [tf.Tensor, tf.Tensor]; scale: number }, label: string) => ({
      sums: [args.pair[0].add(args.pair[1]), args.pair[0].mul(args.scale)],
      label,
      same: args.pair[0],
    }));
    const a = tf.tensor1d([1, 2]);
    const result = f({ pair: [a, tf.tensor1d([10, 20])], scale: 3 }, "x");
    expect(result.sums.map(values)).toEqual([
      [11, 22],
      [3, 6],
    ]);
    expect(result.label).toBe("x");
    expect(values(result.same)).toEqual([1, 2]);
    result.same.dispose();
    expect(values(a)).toEqual([1, 2]);
  });

  test("compiles once per shapes, dtypes and plain values", () => {
    let traces = 0;
    const f = jit((x: tf.Tensor, times: number) => {
      traces++;
      return x.mul(times);
    });
    f(tf.ones([2]), 2);
    f(tf.zeros([2]), 2);
    expect([traces, f.programs]).toEqual([1, 1]);
    f(tf.ones([3]), 2);
    f(tf.ones([2]), 3);
    f(tf.ones([2], "int32"), 2);
    expect([traces, f.programs]).toEqual([4, 4]);
    f.dispose();
    expect(f.programs).toBe(0);
    expect(values(f(tf.ones([2]), 2))).toEqual([2, 2]);
  });

  test("announces the first call of each program", () => {
    const heard: string[] = [];
    const end = onCompile(({ name, seconds }) => heard.push(`${name} ${seconds > 0 && seconds < 60}`));
    const f = jit(function doubled(x: tf.Tensor) {
      return x.mul(2);
    });
    const g = jit((x: tf.Tensor) => x.mul(3), { name: "tripled", xla: false });
    for (const x of [tf.ones([2]), tf.ones([3]), tf.zeros([2])]) tf.dispose([f(x), g(x)]);
    withoutJit(() => f(tf.ones([4])).dispose());
    end();
    f(tf.ones([5])).dispose();
    expect(heard).toEqual(["doubled true", "tripled true", "doubled true", "tripled true"]);
  });

  test("takes gradients inside: of x^3 at 2 it is 12", () => {
    const f = jit((x: tf.Tensor) => tf.valueAndGrad((y) => y.mul(y).mul(y).sum())(x));
    const { value, grad } = f(tf.tensor1d([2]));
    expect([...values(value), ...values(grad)]).toEqual([8, 12]);
  });

  test("runs op by op within a gradient that was begun outside", () => {
    const f = jit((x: tf.Tensor) => x.square().sum());
    expect(values(tf.grad((x) => f(x))(tf.tensor1d([3])))).toEqual([6]);
  });

  test("is inlined inside another jit", () => {
    const inner = jit((x: tf.Tensor) => x.add(1));
    const outer = jit((x: tf.Tensor) => inner(x).mul(2));
    expect(values(outer(tf.tensor1d([3])))).toEqual([8]);
    expect(inner.programs).toBe(0);
  });

  test("large constants made inside keep their values", () => {
    const f = jit((x: tf.Tensor) => x.add(tf.ones([100])).add(tf.tensor1d(Array.from({ length: 100 }, (_, i) => i))));
    expect(values(f(tf.zeros([100]))).slice(0, 4)).toEqual([1, 2, 3, 4]);
  });
});

describe("captures of jit", () => {
  test("an eager tensor is a hidden input, not a constant", () => {
    const w = tf.tensor1d([1, 2]);
    const f = jit((x: tf.Tensor) => x.mul(w));
    expect(values(f(tf.tensor1d([3, 4])))).toEqual([3, 8]);
  });

  test("a tf.Variable is looked up at each call", () => {
    const w = tf.variable(tf.tensor1d([1, 2]));
    const f = jit((x: tf.Tensor) => x.mul(w));
    f(tf.tensor1d([3, 4]));
    w.assign(tf.tensor1d([10, 20]));
    expect(values(f(tf.tensor1d([3, 4])))).toEqual([30, 80]);
    w.dispose();
  });

  test("a Variable is read and updated in place", () => {
    const count = new Variable(scalar(1));
    const f = jit(() => {
      const before = count.read();
      count.assign(before.add(1));
      count.assign(count.read().mul(10));
      return { before, after: count.read() };
    });
    const first = f();
    expect([...values(first.before), ...values(first.after)]).toEqual([1, 20]);
    expect(values(f().before)).toEqual([20]);
    expect(values(count.read())).toEqual([210]);
    expect(withoutJit(() => values(f().after))).toEqual([2110]);
    count.dispose();
  });

  test("a Variable that is assigned what does not depend on it is still read before", () => {
    const a = new Variable(scalar(1));
    const b = new Variable(scalar(2));
    const swap = jit(() => {
      const [x, y] = [a.read(), b.read()];
      a.assign(y);
      b.assign(x);
    });
    swap();
    expect([...values(a.read()), ...values(b.read())]).toEqual([2, 1]);
    swap();
    expect([...values(a.read()), ...values(b.read())]).toEqual([1, 2]);
  });

  test("Variables passed as arguments share one program", () => {
    const increment = jit((v: { w: Variable }) => v.w.assign(v.w.read().add(1)));
    const [a, b] = [new Variable(scalar(1)), new Variable(scalar(5))];
    increment({ w: a });
    increment({ w: b });
    expect([...values(a.read()), ...values(b.read())]).toEqual([2, 6]);
    expect(increment.programs).toBe(1);
  });

  test("a small int32 tensor from outside may be an axis or a shape", () => {
    const axis = scalar(1, "int32");
    const f = jit((x: tf.Tensor) => x.sum(axis.dataSync()[0]).add(axis.cast("float32")));
    expect(values(f(tf.ones([2, 3])))).toEqual([4, 4]);
    axis.dispose();
    expect(values(f(tf.ones([2, 3])))).toEqual([4, 4]);
  });

  test("a Variable does not write into the array it was made from", () => {
    const array = new Float32Array(1024);
    const initial = tf.tensor1d(array);
    const v = new Variable(initial);
    initial.dispose();
    jit(() => v.assign(v.read().add(1)))();
    expect(array[0]).toBe(0);
    expect(v.read().dataSync()[0]).toBe(1);
  });
});

describe("whileLoop and cond", () => {
  const factorial = (n: number) =>
    whileLoop(
      ({ i }) => i.lessEqual(scalar(n, "int32")),
      ({ i, product }) => ({ i: i.add(scalar(1, "int32")), product: product.mul(i.cast("float32")) }),
      { i: scalar(1, "int32"), product: scalar(1) },
    ).product;

  test("whileLoop repeats while its condition holds, traced and plain", () => {
    expect(values(jit(() => factorial(5))())).toEqual([120]);
    expect(values(factorial(5))).toEqual([120]);
  });

  test("a loop body may use arguments, eager tensors, Variables and constants of outside", () => {
    const eager = scalar(100);
    const variable = new Variable(scalar(1000));
    const f = jit((x: tf.Tensor) => {
      const ten = scalar(10);
      return whileLoop(
        ({ i }) => i.less(scalar(2)),
        ({ i, sum }) => ({ i: i.add(1), sum: sum.add(x).add(ten).add(eager).add(variable.read()) }),
        { i: scalar(0), sum: scalar(0) },
      ).sum;
    });
    expect(values(f(scalar(1)))).toEqual([2222]);
    variable.assign(scalar(0));
    expect(values(f(scalar(2)))).toEqual([224]);
  });

  test("loops nest, and the inner one sees what is outside the outer one", () => {
    const f = jit(
      (x: tf.Tensor) =>
        whileLoop(
          ({ i }) => i.less(3),
          ({ i, sum }) => ({
            i: i.add(1),
            sum: whileLoop(
              ({ j }) => j.less(2),
              ({ j, s }) => ({ j: j.add(1), s: s.add(x).add(i) }),
              { j: scalar(0), s: sum },
            ).s,
          }),
          { i: scalar(0), sum: scalar(0) },
        ).sum,
    );
    expect(values(f(scalar(5)))).toEqual([6 * 5 + 2 * (0 + 1 + 2)]);
  });

  test("switchCase runs the branch of a number, and the last one where there is none", () => {
    const run = (index: tf.Tensor, x: tf.Tensor) =>
      switchCase(index, [() => [x.add(1)], () => [x.mul(10)], () => [tf.grad((y) => y.square().sum())(x)]])[0]!;
    const compiled = jit(run);
    const x = tf.tensor1d([3, 4]);
    for (const [index, expected] of [
      [0, [4, 5]],
      [1, [30, 40]],
      [2, [6, 8]],
      [3, [6, 8]],
    ] as const)
      for (const fn of [run, compiled]) expect([...fn(tf.scalar(index, "int32"), x).dataSync()]).toEqual(expected);
    expect(compiled.programs).toBe(1);
  });

  test("switchCase takes any number of branches with names of any length", () => {
    const many = jit(
      (index: tf.Tensor) =>
        switchCase(
          index,
          Array.from({ length: 300 }, (_, i) => () => tf.scalar(i).mul(2)),
        ),
      { name: "n".repeat(200) },
    );
    expect([...many(tf.scalar(299, "int32")).dataSync()]).toEqual([598]);
  });

  test("cond runs one branch", () => {
    const w = tf.tensor1d([5, 6]);
    const f = (x: tf.Tensor) =>
      cond(
        x.sum().greater(0),
        () => ({ y: x.mul(2) }),
        () => ({ y: w.add(x) }),
      ).y;
    for (const g of [f, jit(f)]) {
      expect(values(g(tf.tensor1d([1, 2])))).toEqual([2, 4]);
      expect(values(g(tf.tensor1d([-1, -2])))).toEqual([4, 4]);
    }
  });

  test("a gradient is taken inside a loop body", () => {
    const f = jit(
      (x: tf.Tensor) =>
        whileLoop(
          ({ i }) => i.less(20),
          ({ i, at }) => ({
            i: i.add(1),
            at: at.sub(
              tf
                .grad((y) => y.sub(3).square().sum())(at)
                .mul(0.25),
            ),
          }),
          { i: scalar(0), at: x },
        ).at,
    );
    expect(values(f(scalar(0)))[0]).toBeCloseTo(3, 4);
  });
});

describe("errors of jit", () => {
  test("a traced tensor that is read names its op", () => {
    const f = jit(function readsTwice(x: tf.Tensor) {
      return x.add(1).exp().dataSync()[0];
    });
    expect(() => f(scalar(1))).toThrow(
      "jit(readsTwice): the output of op Exp is read while it is being traced, and has no value yet; return it and read it outside, or decide with cond or whileLoop",
    );
  });

  test("a shape that depends on data names its op", () => {
    const f = jit((x: tf.Tensor) => tf.unique(x as tf.Tensor1D).values, { name: "distinct" });
    expect(() => f(tf.tensor1d([1, 1, 2]))).toThrow(
      "jit(distinct): the shape of op UniqueV2 depends on data, which a compiled function cannot have; use a fixed size with a mask, or compute it outside",
    );
  });

  test("a captured tensor that was disposed names the op that needs it", () => {
    const w = tf.tensor1d([1, 2]);
    const f = jit((x: tf.Tensor) => x.mul(w), { name: "scaled" });
    f(tf.tensor1d([1, 1]));
    w.dispose();
    expect(() => f(tf.tensor1d([1, 1]))).toThrow(
      "jit(scaled): the tensor float32[2] that op Mul refers to was disposed; keep it as long as the compiled function, or pass it as an argument",
    );
  });

  test("a disposed Variable and a disposed argument say so", () => {
    const v = new Variable(scalar(1));
    const f = jit((x: tf.Tensor) => x.mul(v.read()), { name: "times" });
    const x = scalar(2);
    f(x);
    v.dispose();
    expect(() => f(x)).toThrow("jit(times): the Variable float32[] it refers to was disposed");
    x.dispose();
    expect(() => f(x)).toThrow("jit(times): an argument of float32[] was disposed");
    expect(() => v.read()).toThrow("Variable.read: float32[] was disposed");
  });

  test("tfjs' own randomness would be frozen", () => {
    const f = jit((x: tf.Tensor) => x.add(tf.randomNormal([2])), { name: "noisy" });
    expect(() => f(tf.zeros([2]))).toThrow(
      "jit(noisy): tf.randomNormal would be drawn once, while tracing, and stay the same at every call; use randomUniform(seed, counter, shape) of tfjs-jit",
    );
  });

  test("a traced tensor that escapes its trace", () => {
    let leaked: tf.Tensor | undefined;
    jit((x: tf.Tensor) => {
      leaked = tf.keep(x.exp());
      return x;
    })(scalar(1));
    expect(() => leaked!.add(1)).toThrow(
      "a traced tensor is used after its trace ended; return it from the compiled function instead",
    );
    leaked!.dispose();
  });

  test("an argument that is no tensor or plain value", () => {
    const f = jit((x: unknown) => x, { name: "identity" });
    expect(() => f({ a: [new Float32Array(2)] })).toThrow(
      "jit(identity): argument [0].a[0] is an instance of Float32Array; expected tensors, Variables, numbers, strings or booleans, nested in arrays and plain objects",
    );
  });

  test("a Variable of another shape, and one assigned inside a loop", () => {
    const v = new Variable(tf.zeros([2]));
    expect(() => v.assign(tf.zeros([3]))).toThrow("Variable.assign: expected float32[2], got float32[3]");
    const f = jit(
      () =>
        whileLoop(
          ({ i }) => i.less(3),
          ({ i }) => {
            v.assign(tf.ones([2]));
            return { i: i.add(1) };
          },
          { i: scalar(0) },
        ),
      { name: "f" },
    );
    expect(() => f()).toThrow(
      "jit(f): whileLoop body: a Variable is assigned inside it; return the value, and assign it after",
    );
  });

  test("a loop variable that changes its shape, and a condition that is no bool", () => {
    const grow = jit(
      () =>
        whileLoop(
          ({ x }) => x.sum().less(9),
          ({ x }) => ({ x: tf.concat([x, x]) }),
          { x: tf.ones([2]) },
        ),
      { name: "grow" },
    );
    expect(() => grow()).toThrow(
      "jit(grow): whileLoop: x float32[2] on entry, but x float32[4] after the body; shapes and dtypes must agree",
    );
    const odd = jit(
      () =>
        whileLoop(
          ({ x }) => x.sum(),
          ({ x }) => ({ x }),
          { x: tf.ones([2]) },
        ),
      { name: "odd" },
    );
    expect(() => odd()).toThrow("jit(odd): whileLoop: the condition must be one bool scalar, got float32[]");
  });

  test("a gradient through a traced loop, also by what only its body refers to", () => {
    const f = jit(
      (x: tf.Tensor) =>
        tf.grad(
          (y) =>
            whileLoop(
              ({ i }) => i.less(3),
              ({ i, s }) => ({ i: i.add(1), s: s.add(y) }),
              { i: scalar(0), s: scalar(0) },
            ).s,
        )(x),
      { name: "g" },
    );
    expect(() => f(scalar(1))).toThrow(
      "jit(g): whileLoop has no gradient; take the gradient inside its body, or write the loop out",
    );
  });

  test("a failed trace leaves tfjs as it was", () => {
    const before = tf.memory().numTensors;
    const f = jit((x: tf.Tensor) => tf.grad((y) => y.square().sum().add(y.dataSync()[0]!))(x));
    const x = scalar(1);
    expect(() => f(x)).toThrow("is read while it is being traced");
    expect(values(x.add(1))).toEqual([2]);
    expect(tf.memory().numTensors).toBe(before + 2);
  });
});

describe("memory of jit", () => {
  beforeEach(() => tf.engine().startScope());
  afterEach(() => tf.engine().endScope());

  test("1,000 calls leave tensors, handles and resident memory where they were", () => {
    const binding = (tf.backend() as unknown as { binding: { getNumOfTensors(): number } }).binding;
    const state = new Variable(tf.zeros([256, 256]));
    const w = tf.randomUniform([256, 256]);
    const f = jit((x: tf.Tensor) => {
      const y = tf.matMul(x as tf.Tensor2D, w as tf.Tensor2D);
      state.assign(state.read().mul(0.9).add(y));
      return {
        loss: whileLoop(
          ({ i }) => i.less(3),
          ({ i, s }) => ({ i: i.add(1), s: s.add(y.mean()) }),
          { i: scalar(0), s: scalar(0) },
        ).s,
      };
    });
    const x = tf.randomUniform([256, 256]);
    const call = () => tf.tidy(() => f(x).loss.dataSync()[0]);
    for (let i = 0; i < 200; i++) call();
    const before = {
      tensors: tf.memory().numTensors,
      bytes: tf.memory().numBytes,
      handles: binding.getNumOfTensors(),
      rss: process.memoryUsage().rss,
    };
    for (let i = 0; i < 1000; i++) call();
    expect(tf.memory().numTensors).toBe(before.tensors);
    expect(tf.memory().numBytes).toBe(before.bytes);
    expect(binding.getNumOfTensors()).toBe(before.handles);
    expect(process.memoryUsage().rss / before.rss).toBeLessThan(1.02);
  });
});
