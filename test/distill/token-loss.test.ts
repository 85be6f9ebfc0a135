/**
 * Losses by chunks of tokens: the values and gradients of fixtures/kd, those of the plain formulas on whole logits, and
 * finite differences. Most sizes here divide neither the tokens nor the vocabulary.
 *
 * Shape suffixes: W tokens, C tokens of a chunk, D model, V vocabulary, k the teacher's likeliest tokens.
 */
import { jit, tf, toBfloat16, toFloat32, Variable } from "tfjs-jit";
import { afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { crossEntropy, divergence, logProbOf, tokenMean } from "../../distill/losses.js";
import { divergenceFrom, type TargetLoss, type Targets } from "../../distill/targets.js";
import { type Limits, meanLoss, type TokenFunction, tokenValues, weightedLoss } from "../../distill/token-loss.js";
import { topKOfLogits } from "../../distill/top-k.js";
import { type LazyLogits, logitsOf } from "../../model/head.js";
import { EMBEDDING } from "../../model/shapes.js";
import { expectClose, expectRelativelyClose, KD_VOCABULARY, kdCases, kdLogits, numbers, readKd } from "./kd.js";

afterEach(() => vi.unstubAllEnvs());

const limitsOf = (elements: number): Limits => ({ logits: elements, head: elements });

/** Numbers that look random and are the same in every run. */
const wave = (shape: [number, number], pace: number) =>
  tf
    .range(0, shape[0] * shape[1])
    .mul(pace)
    .sin()
    .mul(2)
    .reshape(shape) as tf.Tensor2D;

const [W, V, D] = [11, 13, 3];
type Whole = LazyLogits & { readonly embedding_VD: tf.Tensor2D };
const student: Whole = { hidden_WD: wave([W, D], 1.7), embedding_VD: wave([V, D], 2.3), softCap: 5 };
const target_W = tf.tensor1d([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 12], "int32");
const weight_W = tf.tensor1d([1, -2, 0.5, 0, 1, 3, 1, -1, 0, 2, 1]);
const ofTarget: TokenFunction = (logits_CV, chunkOf) => crossEntropy(logits_CV, chunkOf(target_W));

type Head = Pick<Whole, "hidden_WD" | "embedding_VD">;

/** A loss and its gradients by both of what the logits are made of. */
function valueAndGradients(lossOf: (student: Whole) => tf.Scalar, { hidden_WD, embedding_VD, softCap } = student) {
  const of = (hidden_WD: tf.Tensor, embedding_VD: tf.Tensor) => lossOf({ hidden_WD, embedding_VD, softCap } as Whole);
  const { value, grads } = tf.valueAndGrads(of)([hidden_WD, embedding_VD]);
  return [value, ...grads] as [tf.Tensor, tf.Tensor, tf.Tensor];
}

const bothWays: [string, string][] = [
  ["compiled", "1"],
  ["op by op", "0"],
];

describe("weightedLoss", () => {
  const plain = ({ hidden_WD, embedding_VD, softCap }: LazyLogits) =>
    crossEntropy(logitsOf({ hidden_WD, embedding_VD, softCap }), target_W).mul(weight_W).sum().mul(3) as tf.Scalar;
  // Elements: 1 token a chunk and 1 row of the head a part; 5 chunks of 3 that overlap, 6 parts of 3; 3 of 4; 2 of 6; all.
  test.each([1, 3, 39, 52, 78, V * W])("in chunks of at most %i elements is the plain one, compiled", (maxElements) => {
    const chunked = (head: LazyLogits) =>
      weightedLoss(head, weight_W, ofTarget, limitsOf(maxElements)).mul(3) as tf.Scalar;
    const expected = valueAndGradients(plain);
    const got = jit((hidden_WD: tf.Tensor2D, embedding_VD: tf.Tensor2D) =>
      valueAndGradients(chunked, { ...student, hidden_WD, embedding_VD }),
    )(student.hidden_WD, student.embedding_VD);
    got.forEach((tensor, i) => {
      expectRelativelyClose(numbers(tensor), numbers(expected[i]!), 1e-5);
    });
  });

  test.each([1, 3, 39, 52, 78])("in chunks of at most %i elements is the plain one, op by op", (maxElements) => {
    const chunked = (head: LazyLogits) =>
      weightedLoss(head, weight_W, ofTarget, limitsOf(maxElements)).mul(3) as tf.Scalar;
    const expected = valueAndGradients(plain);
    valueAndGradients(chunked).forEach((tensor, i) => {
      expectRelativelyClose(numbers(tensor), numbers(expected[i]!), 1e-5);
    });
  });

  test("has the gradient that finite differences see", () => {
    const lossOf = (head: Head) => weightedLoss({ ...student, ...head }, weight_W, ofTarget, limitsOf(39));
    const [, ...grads] = valueAndGradients(lossOf);
    (["hidden_WD", "embedding_VD"] as const).forEach((key, which) => {
      const at = student[key];
      const differences = numbers(at).map((_, i) => {
        const moved = (by: number) => {
          const values = at.dataSync().slice();
          values[i]! += by;
          return lossOf({ ...student, [key]: tf.tensor2d(values, at.shape) }).dataSync()[0]!;
        };
        return (moved(1e-2) - moved(-1e-2)) / 2e-2;
      });
      expectClose(numbers(grads[which]!), differences, 5e-3);
    });
  });

  test("never has more logits than it may, and has all at once, without a loop, where it may", () => {
    const shapesSeen = (maxElements: number) => {
      const shapes: number[][] = [];
      weightedLoss(
        student,
        weight_W,
        (logits_CV, chunkOf) => {
          shapes.push(logits_CV.shape, chunkOf(target_W).shape);
          return ofTarget(logits_CV, chunkOf);
        },
        limitsOf(maxElements),
      );
      return shapes;
    };
    expect(shapesSeen(4 * V)).toEqual(
      Array(3)
        .fill([[4, V], [4]])
        .flat(),
    );
    expect(shapesSeen(W * V)).toEqual([[W, V], [W]]);
  });

  test.each(bothWays)("sees no token of weight 0, be its loss NaN, %s", (_, HEDDLE_JIT) => {
    vi.stubEnv("HEDDLE_JIT", HEDDLE_JIT);
    const nan_W = tf.tensor1d(numbers(weight_W).map((weight) => (weight === 0 ? Number.NaN : 0)));
    const spoilt: TokenFunction = (logits_CV, chunkOf) => ofTarget(logits_CV, chunkOf).add(chunkOf(nan_W));
    const both = jit((weights: tf.Tensor1D) =>
      [ofTarget, spoilt].map((lossOf) =>
        valueAndGradients((head) => weightedLoss(head, weights, lossOf, limitsOf(39))),
      ),
    );
    const [clean, withNaN] = both(weight_W);
    withNaN!.forEach((tensor, i) => {
      expect(numbers(tensor)).toEqual(numbers(clean![i]!));
    });
  });

  test("has a gradient by the hidden states where the head is not asked for its own", () => {
    const by = jit((hidden_WD: tf.Tensor) =>
      tf.grad((hidden) =>
        weightedLoss({ ...student, hidden_WD: hidden as tf.Tensor2D }, weight_W, ofTarget, limitsOf(39)).mul(3),
      )(hidden_WD),
    );
    const [, expected] = valueAndGradients(plain);
    expectRelativelyClose(numbers(by(student.hidden_WD)), numbers(expected), 1e-5);
  });

  // Whole chunks and parts of the head, chunks and the whole head, both in parts.
  test.each(
    bothWays.flatMap(([way, jit]) =>
      [
        { logits: W * V, head: 9 },
        { logits: 39, head: V * D },
        { logits: 39, head: 9 },
      ].map((limits) => ({ way, jit, limits })),
    ),
  )("of a head in bfloat16 is that of its rounded values, $way, $limits", ({ jit: HEDDLE_JIT, limits }) => {
    vi.stubEnv("HEDDLE_JIT", HEDDLE_JIT);
    const half_VD = toBfloat16(student.embedding_VD) as tf.Tensor2D;
    const rounded_VD = toFloat32(half_VD) as tf.Tensor2D;
    const of = (embedding_VD: tf.Tensor2D, given: Limits) =>
      jit((hidden_WD: tf.Tensor2D, embedding_VD: tf.Tensor2D) =>
        tf.valueAndGrad((hidden: tf.Tensor) => {
          const head = { hidden_WD: hidden, embedding_VD, softCap: 5 } as LazyLogits;
          return weightedLoss(head, weight_W, ofTarget, given);
        })(hidden_WD),
      )(student.hidden_WD, embedding_VD);
    const [expected, got] = [of(rounded_VD, limitsOf(W * V)), of(half_VD, limits)];
    expectRelativelyClose(numbers(got.value), numbers(expected.value), 1e-5);
    expectRelativelyClose(numbers(got.grad), numbers(expected.grad), 1e-5);
  });

  test.each(bothWays)("leaves no tensor behind, %s", (_, HEDDLE_JIT) => {
    vi.stubEnv("HEDDLE_JIT", HEDDLE_JIT);
    const before = tf.memory().numTensors;
    const of = jit((weights: tf.Tensor1D) =>
      valueAndGradients((head) => weightedLoss(head, weights, ofTarget, limitsOf(39))),
    );
    tf.dispose(of(weight_W));
    expect(tf.memory().numTensors).toBe(before);
  });

  test("lets an error of the loss through and leaves gradients as they were", () => {
    const failing: TokenFunction = () => {
      throw new Error("no such loss");
    };
    expect(() => valueAndGradients((head) => weightedLoss(head, weight_W, failing, limitsOf(39)))).toThrow(
      "no such loss",
    );
    expect(numbers(tf.grad((x) => x.square())(tf.scalar(3)))).toEqual([6]);
  });
});

describe("meanLoss", () => {
  test("is the mean over the counted tokens, given their number", () => {
    const counted_W = tf.tensor1d([1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 0]);
    const expected = tokenMean(crossEntropy(logitsOf(student), target_W), counted_W);
    expectClose(numbers(meanLoss(student, counted_W, tf.scalar(6), ofTarget)), numbers(expected), 1e-6);
    expectClose(numbers(meanLoss(student, counted_W, tf.scalar(12), ofTarget)), numbers(expected.div(2)), 1e-6);
  });

  test("is 0 where none is counted", () => {
    expect(numbers(meanLoss(student, tf.fill([W], 0) as tf.Tensor1D, tf.scalar(0), ofTarget))).toEqual([0]);
  });
});

describe("tokenValues", () => {
  test.each(bothWays)("are the plain log-probabilities, whatever the chunks, %s", (_, HEDDLE_JIT) => {
    vi.stubEnv("HEDDLE_JIT", HEDDLE_JIT);
    const expected = numbers(logProbOf(logitsOf(student), target_W));
    for (const maxElements of [1, 39, 52, 78, W * V]) {
      const of = jit((target: tf.Tensor1D) =>
        tokenValues(student, (logits_CV, chunkOf) => logProbOf(logits_CV, chunkOf(target)), limitsOf(maxElements)),
      );
      expectClose(numbers(of(target_W)), expected, 1e-5);
    }
  });
});

describe("the losses of fixtures/kd by chunks", () => {
  let tensors: Readonly<Record<string, Float32Array>>;
  beforeAll(async () => {
    tensors = await readKd();
  });

  /** The teacher is twice as wide as the student: its hidden states are half its logits, twice. */
  function setUp(cap: number | null) {
    const eye = tf.eye(KD_VOCABULARY) as tf.Tensor2D;
    const half = kdLogits(tensors.teacher!).mul(0.5);
    const student: Whole = { hidden_WD: kdLogits(tensors.student!), embedding_VD: eye, softCap: cap };
    const teacher: Targets = {
      hidden_WD: tf.concat([half, half], 1) as tf.Tensor2D,
      embedding: { [EMBEDDING]: new Variable(tf.concat([eye, eye], 1)) },
      softCap: cap,
    };
    return { student, teacher, mask: tf.tensor1d(tensors.mask!) };
  }

  const lossOf = ({ beta, temperature, top_k, tail }: (typeof kdCases)[number]): TargetLoss => ({
    beta,
    temperature,
    k: top_k ?? KD_VOCABULARY,
    addTail: tail === true,
  });

  function check(c: (typeof kdCases)[number], elements: number): void {
    const { student, teacher, mask } = setUp(c.cap);
    const step = jit((hidden_WD: tf.Tensor2D, embedding_VD: tf.Tensor2D, targets: Targets, counted: tf.Tensor1D) =>
      valueAndGradients(
        (head) =>
          weightedLoss(head, counted, divergenceFrom(targets, lossOf(c)), limitsOf(elements)).div(counted.sum()),
        { ...student, hidden_WD, embedding_VD },
      ),
    );
    const [value, dHidden_WD, dEmbedding_VD] = step(student.hidden_WD, student.embedding_VD, teacher, mask);
    expectClose(numbers(value), [c.loss], 1e-5 * c.loss);
    const expected = tensors[`grad.${c.name}`];
    if (expected === undefined) {
      expect(c.temperature).toBe(0.7);
      return;
    }
    // The student's head is the identity: the gradient by its hidden states is the one by its logits.
    expectRelativelyClose(numbers(dHidden_WD), expected, 1e-5);
    const ofHead = tf.matMul(kdLogits(expected), student.hidden_WD, true);
    expectRelativelyClose(numbers(dEmbedding_VD), numbers(ofHead), 1e-5);
  }

  // 21 tokens in chunks of 4, 53 entries of the vocabulary in parts of 4.
  test.each(kdCases)("$name", (c) => {
    vi.stubEnv("HEDDLE_JIT", "0");
    check(c, 4 * KD_VOCABULARY);
  });

  // In chunks of 7 and in parts of 7.
  test.each(kdCases.filter(({ cap, temperature, beta }) => cap === 30 && temperature === 2 && beta !== 0.1))(
    "$name, compiled",
    (c) => check(c, 7 * KD_VOCABULARY),
  );

  test.each<[string, (teacher_WV: tf.Tensor2D) => Targets, TargetLoss]>([
    [
      "the whole vocabulary",
      (teacher_WV) => ({ logits_WV: tf.logSoftmax(teacher_WV) }),
      { beta: 0.5, temperature: 2, k: KD_VOCABULARY, addTail: false },
    ],
    [
      "8 tokens and the rest",
      (teacher_WV) => topKOfLogits(teacher_WV, 8, 1) as Targets,
      { beta: 1, temperature: 1, k: 8, addTail: true },
    ],
  ])("a teacher behind an address that tells %s gives the loss of one here", (_, remote, loss) => {
    const { student, teacher, mask } = setUp(30);
    const teacher_WV = kdLogits(tensors.teacher!).div(30).tanh().mul<tf.Tensor2D>(30);
    const [here, there] = [teacher, remote(teacher_WV)].map((targets) =>
      weightedLoss(student, mask, divergenceFrom(targets, loss), limitsOf(4 * KD_VOCABULARY)),
    );
    expectRelativelyClose(numbers(there!), numbers(here!), 1e-5);
  });
});

test("a divergence has no gradient through a teacher that shares the student's head", () => {
  const shared = (head: LazyLogits) =>
    weightedLoss(
      head,
      weight_W,
      (q_CV, chunkOf) => {
        const p_CV = logitsOf({ ...head, hidden_WD: chunkOf(head.hidden_WD).mul(0.5) });
        return divergence(q_CV, p_CV, { beta: 0.5, temperature: 1 });
      },
      limitsOf(39),
    );
  const fixed_WV = logitsOf({ ...student, hidden_WD: student.hidden_WD.mul(0.5) });
  const apart = (head: LazyLogits) =>
    weightedLoss(head, weight_W, (q_CV, chunkOf) => divergence(q_CV, chunkOf(fixed_WV), { beta: 0.5, temperature: 1 }));
  const expected = valueAndGradients(apart);
  valueAndGradients(shared).forEach((tensor, i) => {
    expectRelativelyClose(numbers(tensor), numbers(expected[i]!), 1e-5);
  });
});
