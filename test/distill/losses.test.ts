/** Losses against facts a reader can recompute, and against values and gradients made with torch in float64 (fixtures/kd). */
import { jit, tf } from "tfjs-jit";
import { beforeAll, describe, expect, test } from "vitest";
import { TrainingError } from "../../distill/errors.js";
import { crossEntropy, divergence, divergenceTopK, logProbOf, tokenMean } from "../../distill/losses.js";
import { checkRemoteTopK, checkTopK, topKOfLogits, topKOfServer } from "../../distill/top-k.js";
import { expectClose, expectRelativelyClose, type KdCase, kdCases, kdLogits, numbers, readKd } from "./kd.js";

const mean = (xs: number[]) => xs.reduce((a, b) => a + b, 0) / xs.length;
const probabilities = (...rows: number[][]) => tf.log(tf.tensor2d(rows)) as tf.Tensor2D;

/** Central differences of a scalar function of a small tensor. */
function finiteDifferences(f: (x: tf.Tensor2D) => tf.Tensor, x: tf.Tensor2D, h = 1e-2): number[] {
  return numbers(x).map((_, i) => {
    const step = numbers(x).map((_, j) => (j === i ? h : 0));
    const moved = (sign: 1 | -1) => f(tf.add(x, tf.tensor2d(step, x.shape).mul(sign))).dataSync()[0]!;
    return (moved(1) - moved(-1)) / (2 * h);
  });
}

describe("divergence", () => {
  test.each([
    [0, 1.75778],
    [0.1, 0.146311],
    [0.25, 0.285781],
    [0.5, 0.368064],
    [0.75, 0.285781],
    [1, 1.75778],
  ])("of the student (1/10, 9/10) from the teacher (9/10, 1/10) at beta %d is %d", (beta, expected) => {
    const kl = divergence(probabilities([0.1, 0.9]), probabilities([0.9, 0.1]), { beta, temperature: 1 });
    expectClose(numbers(kl), [expected], 1e-6);
  });

  test.each([
    [0, 0.914593],
    [0.1, 0.08139],
    [0.25, 0.169482],
    [0.5, 0.234928],
    [0.9, 0.10569],
    [1, 1.364408],
  ])("of five classes at beta %d is %d", (beta, expected) => {
    const student = tf.tensor2d([[1, 0.5, -1, 0, 2]]);
    const teacher = tf.tensor2d([[0.2, 1.5, -0.3, 0.7, -1.2]]);
    expectClose(numbers(divergence(student, teacher, { beta, temperature: 1 })), [expected], 1e-6);
  });

  // The inputs of torchtune's test_kd_losses.py; its reverse KL is .6775. Its forward KL, 1.7209, is a cross-entropy.
  const student = tf.tensor2d([
    [1.125, -0.4102, -0.0879, -2.5],
    [0.2676, 0.3535, 0.8711, -1.4688],
    [-0.1084, 1.6641, 0.0084, 0.1196],
    [0.5, -0.6406, -0.2236, -1.5938],
    [-1.5312, -1.9219, 0, -0.5039],
    [-1.5391, 1.5312, 0.582, 0.2695],
    [-0.3887, 1.2188, 0, 0.6055],
    [0.5, 1.3828, 0.1309, -1.0312],
  ]);
  const teacher = tf.tensor2d([
    [-0.0381, -1.2578, -1.2031, 0.0947],
    [-0.7852, 0.4492, 1.5547, 0.0972],
    [0.8203, 0.0012, 0.7656, 0.3477],
    [-1.5781, 0.4297, 0.5977, 0.3926],
    [1.5156, 0.1641, 2.0781, -0.7734],
    [-0.5898, 0.4453, -0.7969, 0.6328],
    [0.6289, -0.8359, 0.9258, 0.2109],
    [0.0006, 0.5195, 3.2344, -1.5781],
  ]);

  test.each([
    [1, [0.629286, 0.053423, 0.107127, 0.141548, 0.056712, 0.677491]],
    [2, [0.1948, 0.017251, 0.035383, 0.046762, 0.017252, 0.194522]],
  ])("at temperature %d gives the means of torchtune's eight tokens", (temperature, expected) => {
    const got = [0, 0.1, 0.25, 0.5, 0.9, 1].map((beta) =>
      mean(numbers(divergence(student, teacher, { beta, temperature }))),
    );
    expectClose(got, expected, 1e-6);
  });

  test("at beta 0 is torchtune's cross-entropy less the teacher's entropy", () => {
    const p = tf.softmax(teacher);
    const crossEntropyOfTeacher = tf.neg(tf.sum(tf.mul(p, tf.logSoftmax(student)), 1));
    const entropy = tf.neg(tf.sum(tf.mul(p, tf.logSoftmax(teacher)), 1));
    expect(mean(numbers(crossEntropyOfTeacher))).toBeCloseTo(1.7209, 4);
    expect(mean(numbers(entropy))).toBeCloseTo(1.0916, 4);
    expectClose(
      numbers(divergence(student, teacher, { beta: 0, temperature: 1 })),
      numbers(tf.sub(crossEntropyOfTeacher, entropy)),
      1e-6,
    );
  });

  test.each([0.1, 0.5, 0.9])("changes beta %d into 1 - beta when student and teacher change places", (beta) => {
    const there = divergence(student, teacher, { beta, temperature: 1 });
    const back = divergence(teacher, student, { beta: 1 - beta, temperature: 1 });
    expectClose(numbers(there), numbers(back), 1e-6);
  });

  test("goes to 0 like beta times KL(p || q) between the ends, and jumps to it at 0", () => {
    const ratios = [0.1, 0.01, 0.001, 0.0001].map(
      (beta) =>
        numbers(divergence(probabilities([0.1, 0.9]), probabilities([0.9, 0.1]), { beta, temperature: 1 }))[0]! / beta,
    );
    expectClose(ratios, [1.46311, 1.72303, 1.75423, 1.75742], 2e-3);
  });

  test.each([0, 0.3, 1])("is 0 at beta %d when the models agree up to a constant", (beta) => {
    const shifted = tf.add(teacher, 7) as tf.Tensor2D;
    expectClose(numbers(divergence(shifted, teacher, { beta, temperature: 0.7 })), Array(8).fill(0), 2e-7);
  });

  test.each([
    [0, 120],
    [0.5, Math.LN2],
    [1, 120],
  ])("at beta %d of two certain models that disagree by 120 logits is %d, with a finite gradient", (beta, expected) => {
    const of = (x: tf.Tensor2D) => divergence(x, tf.tensor2d([[-120, 0]]), { beta, temperature: 1 });
    const student = tf.tensor2d([[0, -120]]);
    expectClose(numbers(of(student)), [expected], 1e-4);
    expect(numbers(tf.grad(of as (x: tf.Tensor) => tf.Tensor)(student)).every(Number.isFinite)).toBe(true);
  });

  test("stays finite at logits of -5000 when compiled, tail and all", () => {
    const both = jit((x: tf.Tensor, teacherLogits: tf.Tensor) =>
      [0, 0.5, 1].map((beta) =>
        tf.valueAndGrad((z: tf.Tensor) => {
          const top = topKOfLogits(teacherLogits as tf.Tensor2D, 1, 1);
          const tailed = divergenceTopK(z as tf.Tensor2D, top, { beta, temperature: 1, addTail: true });
          return tf.add(divergence(z as tf.Tensor2D, teacherLogits as tf.Tensor2D, { beta, temperature: 1 }), tailed);
        })(x),
      ),
    );
    const results = both(tf.tensor2d([[0, -5000, -5000]]), tf.tensor2d([[-5000, 0, -5000]]));
    expectClose(
      results.map(({ value }) => numbers(value)[0]!),
      [10000, 2 * Math.LN2, 10000 - Math.LN2],
      1e-2,
    );
    expect(results.every(({ grad }) => numbers(grad).every(Number.isFinite))).toBe(true);
  });

  test.each([
    ["forward KL", 0, (q: number, p: number) => q - p],
    ["reverse KL", 1, (q: number, p: number, kl: number) => q * (Math.log(q / p) - kl)],
  ])("has the gradient of %s", (_, beta, formula) => {
    const [q, p] = [
      [0.1, 0.2, 0.7],
      [0.5, 0.3, 0.2],
    ] as const;
    const of = (x: tf.Tensor) => divergence(x as tf.Tensor2D, probabilities([...p]), { beta, temperature: 1 });
    const kl = q.reduce((sum, _, i) => sum + q[i]! * Math.log(q[i]! / p[i]!), 0);
    const expected = q.map((_, i) => formula(q[i]!, p[i]!, kl));
    expectClose(numbers(tf.grad(of)(probabilities([...q]))), expected, 1e-6);
  });

  test.each([0, 0.1, 0.5, 0.9, 1])("has at beta %d the gradient that finite differences see", (beta) => {
    const loss = (x: tf.Tensor) =>
      tf.sum(
        tf.mul(
          divergence(x as tf.Tensor2D, teacher, { beta, temperature: 0.7 }),
          tf.tensor1d([1, 0, 2, 3, 0, 1, 1, 5]),
        ),
      );
    expectClose(numbers(tf.grad(loss)(student)), finiteDifferences(loss, student), 2e-3);
  });

  test("has no gradient through the teacher, even where it shares the student's parameters", () => {
    const shared = (x: tf.Tensor) => divergence(x as tf.Tensor2D, tf.mul(x, 0.5), { beta: 0.5, temperature: 1 });
    const apart = (x: tf.Tensor) =>
      divergence(x as tf.Tensor2D, tf.mul(student, 0.5) as tf.Tensor2D, { beta: 0.5, temperature: 1 });
    expectClose(numbers(tf.grad(shared)(student)), numbers(tf.grad(apart)(student)), 0);
  });

  test("leaves no tensor behind", () => {
    const before = tf.memory().numTensors;
    const of = (x: tf.Tensor) => divergence(x as tf.Tensor2D, teacher, { beta: 0.5, temperature: 2 });
    tf.dispose(tf.valueAndGrad(of)(student));
    tf.tidy(() => void divergence(student, teacher, { beta: 1, temperature: 1 }));
    expect(tf.memory().numTensors).toBe(before);
  });

  test("refuses two vocabularies and options out of range", () => {
    const ok = { beta: 0, temperature: 1 };
    expect(() => divergence(student, tf.zeros([8, 5]) as tf.Tensor2D, ok)).toThrow(
      new RangeError(
        "divergence: student logits have shape [8,4], teacher logits [8,5]: both need the same tokens and the same vocabulary",
      ),
    );
    expect(() => divergence(student, teacher, { ...ok, beta: 1.1 })).toThrow(
      new RangeError("beta: expected a number from 0 to 1, got 1.1"),
    );
    expect(() => divergence(student, teacher, { ...ok, temperature: 0 })).toThrow(
      new RangeError("loss_temperature: expected a number above 0, got 0"),
    );
  });
});

describe("divergenceTopK", () => {
  const teacher = probabilities([1 / 8, 1 / 2, 1 / 8, 1 / 4]);
  const uniform = tf.zeros([1, 4]) as tf.Tensor2D;

  test("with a tail compares (1/2, 1/4, rest 1/4) with (1/4, 1/4, rest 1/2)", () => {
    const kl = divergenceTopK(uniform, topKOfLogits(teacher, 2, 1), { beta: 0, temperature: 1, addTail: true });
    expectClose(numbers(kl), [0.25 * Math.LN2], 1e-6);
  });

  test("without a tail compares (2/3, 1/3) with (1/2, 1/2)", () => {
    const kl = divergenceTopK(uniform, topKOfLogits(teacher, 2, 1), { beta: 0, temperature: 1, addTail: false });
    expectClose(numbers(kl), [(2 / 3) * Math.log(4 / 3) + (1 / 3) * Math.log(2 / 3)], 1e-6);
  });

  test("takes the teacher's support at beta 1, too", () => {
    const student = probabilities([0.7, 0.1, 0.1, 0.1]);
    const kl = divergenceTopK(student, topKOfLogits(teacher, 1, 1), { beta: 1, temperature: 1, addTail: true });
    expectClose(numbers(kl), [0.1 * Math.log(0.1 / 0.5) + 0.9 * Math.log(0.9 / 0.5)], 1e-6);
  });

  test("keeps a tail of e^-40 exact", () => {
    const certain = tf.tensor2d([[0, -40, -40]]);
    const kl = divergenceTopK(tf.zeros([1, 3]), topKOfLogits(certain, 1, 1), {
      beta: 1,
      temperature: 1,
      addTail: true,
    });
    expectClose(numbers(kl), [(1 / 3) * Math.log(1 / 3) + (2 / 3) * (Math.log(2 / 3) + 40 - Math.LN2)], 1e-5);
  });

  test.each([
    [0, true],
    [0.5, false],
    [1, true],
  ])("of the whole vocabulary is the divergence (beta %d, tail %s)", (beta, addTail) => {
    const student = tf.tensor2d([[0.3, -1, 2, 0.1]]);
    const whole = divergenceTopK(student, topKOfLogits(teacher, 4, 2), { beta, temperature: 2, addTail });
    expectClose(numbers(whole), numbers(divergence(student, teacher, { beta, temperature: 2 })), 1e-6);
  });

  test("takes beta and temperature as tensors too, with the same result", () => {
    const student = tf.tensor2d([[0.3, -1, 2, 0.1]]);
    const fixed = divergence(student, teacher, { beta: 0.3, temperature: 2 });
    const tensors = divergence(student, teacher, { beta: tf.scalar(0.3), temperature: tf.scalar(2) });
    expectClose(numbers(tensors), numbers(fixed), 1e-6);
  });

  test.each([0, 0.5, 1])("has at beta %d the gradient that finite differences see", (beta) => {
    const student = tf.tensor2d([[0.3, -1, 2, 0.1]]);
    for (const addTail of [true, false]) {
      const loss = (x: tf.Tensor) =>
        tf.sum(divergenceTopK(x as tf.Tensor2D, topKOfLogits(teacher, 2, 0.7), { beta, temperature: 0.7, addTail }));
      expectClose(numbers(tf.grad(loss)(student)), finiteDifferences(loss, student), 2e-3);
    }
  });

  describe("of a server's log-probabilities", () => {
    const student = tf.tensor2d([[0.3, -1, 2, 0.1]]);
    const served = (k: number, temperature: number) => {
      return topKOfServer({ tail_N: tf.tensor1d([-Infinity]), ...topKOfLogits(teacher, k, 1) }, temperature);
    };

    test.each([
      ["with a tail at temperature 1", 2, 1, true],
      ["without a tail at temperature 2", 2, 2, false],
      ["of the whole vocabulary at temperature 2", 4, 2, true],
    ])("%s is what the teacher's logits give", (_, k, temperature, addTail) => {
      const options = { beta: 0.5, temperature, addTail };
      const local = divergenceTopK(student, topKOfLogits(teacher, k, temperature), options);
      expectClose(numbers(divergenceTopK(student, served(k, temperature), options)), numbers(local), 1e-6);
    });

    test("stays finite where the server says -Infinity, of a token or of the rest", () => {
      const ids = tf.tensor2d([[1, 2]], [1, 2], "int32");
      for (const logprobs of [
        [0, -Infinity],
        [0, -50],
      ]) {
        const scores = { ids_Nk: ids, logprobs_Nk: tf.tensor2d([logprobs]), tail_N: tf.tensor1d([-Infinity]) };
        const kl = divergenceTopK(student, topKOfServer(scores, 1), {
          beta: 0,
          temperature: 1,
          addTail: true,
        });
        expect(Number.isFinite(numbers(kl)[0])).toBe(true);
      }
    });

    test("has no tail at temperature 2", () => {
      expect(() => divergenceTopK(student, served(2, 2), { beta: 0, temperature: 2, addTail: true })).toThrow(
        new RangeError("divergenceTopK: addTail needs the teacher's tail_N, got none"),
      );
    });
  });
});

describe("checkRemoteTopK", () => {
  test("accepts what a server can tell", () => {
    checkRemoteTopK({ k: 8, vocabulary: 100, temperature: 1, addTail: true });
    checkRemoteTopK({ k: 8, vocabulary: 100, temperature: 2, addTail: false });
    checkRemoteTopK({ k: 100, vocabulary: 100, temperature: 2, addTail: true });
  });

  test("refuses a tail at another temperature, and says what would do", () => {
    expect(() => checkRemoteTopK({ k: 8, vocabulary: 100, temperature: 2, addTail: true })).toThrow(
      new TrainingError(
        "loss_temperature 2 with loss_add_tail: true needs the teacher's whole distribution, but a teacher over HTTP tells " +
          "log-probabilities of its top 8 tokens at temperature 1: set loss_temperature: 1, or loss_add_tail: false, or " +
          "loss_top_k: 100 (the whole vocabulary)",
      ),
    );
  });
});

describe("checkTopK", () => {
  test("accepts 1 to the whole vocabulary", () => {
    for (const k of [1, 100]) checkTopK({ k, vocabulary: 100 });
  });

  test.each([0, 2.5, 101])("refuses a top k of %d", (k) => {
    expect(() => checkTopK({ k, vocabulary: 100 })).toThrow(
      new TrainingError(`loss_top_k: expected an integer from 1 to 100 (the vocabulary), got ${k}`),
    );
  });
});

describe("crossEntropy and logProbOf", () => {
  const ids = (...xs: number[]) => tf.tensor1d(xs, "int32");

  test("are ln V and -ln V of V equal logits", () => {
    const logits = tf.fill([2, 10], 3) as tf.Tensor2D;
    expectClose(numbers(crossEntropy(logits, ids(0, 9))), [Math.log(10), Math.log(10)], 1e-6);
    expectClose(numbers(logProbOf(logits, ids(0, 9))), [-Math.log(10), -Math.log(10)], 1e-6);
  });

  test("pick each token's own id, at logits of -120, too", () => {
    const logits = tf.tensor2d([
      [0, -120],
      [-120, 0],
    ]);
    expectClose(numbers(logProbOf(logits, ids(1, 1))), [-120, 0], 1e-5);
  });

  test("have the gradient softmax - onehot", () => {
    const loss = (x: tf.Tensor) => crossEntropy(x as tf.Tensor2D, ids(2));
    expectClose(numbers(tf.grad(loss)(probabilities([0.2, 0.3, 0.5]))), [0.2, 0.3, -0.5], 1e-6);
  });
});

describe("tokenMean", () => {
  test("averages over counted tokens alone: (1 + 3) / 2", () => {
    expect(numbers(tokenMean(tf.tensor1d([1, 100, 3]), tf.tensor1d([1, 0, 1])))).toEqual([2]);
  });

  test("of the parts of a step, given the step's count, adds up to the step's mean: 1/3 + 5/3 = 2", () => {
    const tokens = tf.scalar(3);
    const first = tokenMean(tf.tensor1d([1, 9]), tf.tensor1d([1, 0]), tokens);
    const second = tokenMean(tf.tensor1d([2, 3]), tf.tensor1d([1, 1]), tokens);
    expectClose(numbers(tf.add(first, second)), [2], 1e-6);
  });

  test("does not see masked values, be they NaN", () => {
    expect(numbers(tokenMean(tf.tensor1d([1, Number.NaN]), tf.tensor1d([1, 0])))).toEqual([1]);
  });

  const logits = tf.tensor2d([
    [1, 2, 3],
    [0, -1, 1],
  ]);
  const teacher = tf.tensor2d([
    [3, 2, 1],
    [1, 0, 0],
  ]);
  const loss = (student: tf.Tensor, mask: tf.Tensor1D, teacherLogits = teacher) =>
    tokenMean(divergence(student as tf.Tensor2D, teacherLogits, { beta: 0.5, temperature: 1 }), mask);

  test("leaves a loss and its gradient as they are when masked logits move by 5", () => {
    const mask = tf.tensor1d([1, 0]);
    const moved = tf.add(logits, tf.tensor2d([[0], [1]]).mul(tf.tensor2d([[5, 0, -5]]))) as tf.Tensor2D;
    const grad = (at: tf.Tensor2D) => numbers(tf.grad((x: tf.Tensor) => loss(x, mask))(at)).map((g) => g + 0); // -0 is 0
    expect(numbers(loss(moved, mask))).toEqual(numbers(loss(logits, mask)));
    expect(grad(moved)).toEqual(grad(logits));
    expect(grad(logits).slice(3)).toEqual([0, 0, 0]);
    expect(
      grad(logits)
        .slice(0, 3)
        .every((g) => g !== 0),
    ).toBe(true);
  });

  test("is 0 with a gradient of zeros when no token counts", () => {
    const mask = tf.tensor1d([0, 0]);
    expect(numbers(loss(logits, mask))).toEqual([0]);
    expect(numbers(tf.grad((x: tf.Tensor) => loss(x, mask))(logits)).map(Math.abs)).toEqual([0, 0, 0, 0, 0, 0]);
  });
});

describe("the losses of fixtures/kd", () => {
  let tensors: Readonly<Record<string, Float32Array>>;
  beforeAll(async () => {
    tensors = await readKd();
  });

  const lossOf = (c: KdCase) => (student: tf.Tensor, teacher: tf.Tensor, mask: tf.Tensor) => {
    const softCap = (x: tf.Tensor) => (c.cap === null ? x : x.div(c.cap).tanh().mul(c.cap)) as tf.Tensor2D;
    const options = { beta: c.beta, temperature: c.temperature };
    const kl =
      c.top_k === null
        ? divergence(softCap(student), softCap(teacher), options)
        : divergenceTopK(softCap(student), topKOfLogits(softCap(teacher), c.top_k, c.temperature), {
            ...options,
            addTail: c.tail === true,
          });
    return tokenMean(kl, mask as tf.Tensor1D);
  };

  test.each(kdCases)("$name", (c) => {
    const [teacher, mask] = [kdLogits(tensors.teacher!), tf.tensor1d(tensors.mask!)];
    const { value, grad } = tf.valueAndGrad((x: tf.Tensor) => lossOf(c)(x, teacher, mask))(kdLogits(tensors.student!));
    expectClose(numbers(value), [c.loss], 1e-5 * c.loss);
    const expected = tensors[`grad.${c.name}`];
    if (expected === undefined) expect(c.temperature).toBe(0.7);
    else expectRelativelyClose(numbers(grad), expected, 1e-5);
  });

  test.each(kdCases.filter((c) => c.cap === 30 && c.temperature === 2))("$name, compiled", (c) => {
    const step = jit((student: tf.Tensor, teacher: tf.Tensor, mask: tf.Tensor) =>
      tf.valueAndGrad((x: tf.Tensor) => lossOf(c)(x, teacher, mask))(student),
    );
    const { value, grad } = step(kdLogits(tensors.student!), kdLogits(tensors.teacher!), tf.tensor1d(tensors.mask!));
    expectClose(numbers(value), [c.loss], 1e-5 * c.loss);
    const expected = tensors[`grad.${c.name}`]!;
    expectRelativelyClose(numbers(grad), expected, 1e-5);
  });
});
