/** Stages of sampling, and what they keep: by hand, and against one loop that goes on with all completions. */
import { tf } from "tfjs-jit";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { listPrompts, sizesOf } from "../../model/batch.js";
import { type ModelConfig, readModelConfig } from "../../model/config.js";
import { createParameters, disposeParameters, type Parameters } from "../../model/parameters.js";
import { loadWeights } from "../../model/weights.js";
import { amongAll, type Kept, keepAll, keepUnfinished, promptsSeen } from "../../student/kept.js";
import { type Completion, type SamplingOptions, sampleCompletions } from "../../student/sample.js";
import type { Prompts } from "../../student/sampling-cache.js";
import { planStages, type Stage } from "../../student/sampling-stages.js";
import { stopTexts } from "../../student/stop-texts.js";
import { fixture } from "../model/golden.js";

describe("planStages", () => {
  test("few completions, or few tokens, are one stage", () => {
    expect(planStages(8, 1000)).toEqual([{ completions: 8, slots: 999 }]);
    expect(planStages(64, 10)).toEqual([{ completions: 64, slots: 9 }]);
  });

  test("many are all of them, then the last quarter", () => {
    expect(planStages(256, 10)).toEqual([
      { completions: 256, slots: 9 },
      { completions: 64, slots: 9 },
    ]);
  });

  test("many long ones begin with a quarter of the slots", () => {
    expect(planStages(18, 256)).toEqual([
      { completions: 18, slots: 64 },
      { completions: 18, slots: 255 },
      { completions: 5, slots: 255 },
    ]);
  });

  test("a completion of one token needs no slot, and a stage has one", () => {
    expect(planStages(2, 1)).toEqual([{ completions: 2, slots: 1 }]);
  });
});

const ints = (values: number[]) => tf.tensor1d(values, "int32");
const bools = (values: number[]) => tf.tensor1d(values, "bool");

describe("with 2 completions of each of 3 prompts", () => {
  /** One layer whose values of prompt b are all b; 4 slots. */
  function prompts(): Prompts {
    const of = (shape: [number, number, number, number]) => tf.range(0, 3).reshape([3, 1, 1, 1]).tile(shape);
    const keys = { positions_BS: tf.range(0, 12, 1, "int32").reshape([3, 4]), segments_BS: tf.zeros([3, 4], "int32") };
    return {
      cache: [{ k_BKHS: of([1, 1, 2, 4]), v_BKSH: of([1, 1, 4, 2]) }],
      keys: { sliding_attention: keys, full_attention: keys },
    } as Prompts;
  }
  const numbers = ({ completion_M, place_C, prompt_R }: Kept) =>
    [completion_M, place_C, prompt_R].map((x) => [...x.dataSync()]);
  const layoutOf = (kept: Kept) => {
    const { token_BT, slot_M } = promptsSeen(kept).layout;
    return { token_BT: token_BT.arraySync(), slot_M: [...slot_M.dataSync()] };
  };

  test("all are kept at first: each at its own place in the grid of prompts", () => {
    const kept = keepAll(prompts(), 3, 2);
    expect(numbers(kept)).toEqual([
      [0, 1, 2, 3, 4, 5],
      [0, 1, 2, 3, 4, 5],
      [0, 1, 2],
    ]);
    expect(layoutOf(kept)).toEqual({
      token_BT: [
        [0, 1],
        [2, 3],
        [4, 5],
      ],
      slot_M: [0, 1, 2, 3, 4, 5],
    });
  });

  test("those that have not ended are kept in their order, with the prompts that they have", () => {
    // Completions 1 and 5 go on; of the 2 prompts that there is room for they need 0 and 2.
    const { kept, order_M } = keepUnfinished(keepAll(prompts(), 3, 2), bools([1, 0, 1, 1, 1, 0]), 2);
    expect([...order_M.dataSync()]).toEqual([1, 5]);
    expect(numbers(kept)).toEqual([
      [1, 5],
      [2, 0, 2, 2, 2, 1],
      [0, 2],
    ]);
    expect(layoutOf(kept)).toEqual({
      token_BT: [
        [-1, 0],
        [-1, 1],
      ],
      slot_M: [1, 3],
    });
    const seen = promptsSeen(kept);
    expect([...seen.cache[0]!.v_BKSH.dataSync()]).toEqual([...Array(8).fill(0), ...Array(8).fill(2)]);
    expect(seen.keys.full_attention.positions_BS.arraySync()).toEqual([
      [0, 1, 2, 3],
      [8, 9, 10, 11],
    ]);
    expect([...amongAll(ints([7, 9]), kept).dataSync()]).toEqual([0, 7, 0, 0, 0, 9]);
  });

  test("where fewer go on than are kept, the first that have ended fill up, and see any prompt", () => {
    // Completion 4 goes on, and 0 fills up; prompt 2 is needed, and prompt 0 fills up.
    const first = keepUnfinished(keepAll(prompts(), 3, 2), bools([1, 1, 1, 1, 0, 1]), 2);
    expect(numbers(first.kept)).toEqual([
      [4, 0],
      [1, 2, 2, 2, 0, 2],
      [2, 0],
    ]);
    expect(layoutOf(first.kept).slot_M).toEqual([0, 2]);
    // Then completion 4 has ended as well: its place is still 0, though its prompt may be gone.
    const second = keepUnfinished(first.kept, bools([1, 0]), 1);
    expect(numbers(second.kept)).toEqual([[0], [0, 1, 1, 1, 1, 1], [0]]);
    expect(layoutOf(second.kept)).toEqual({ token_BT: [[0, -1]], slot_M: [0] });
  });

  test("with room for all prompts they stay as they are", () => {
    const { kept } = keepUnfinished(keepAll(prompts(), 3, 2), bools([1, 1, 0, 0, 0, 1]), 3);
    expect(numbers(kept)).toEqual([
      [2, 3, 4],
      [3, 3, 0, 1, 2, 3],
      [0, 1, 2],
    ]);
    expect(layoutOf(kept)).toEqual({
      token_BT: [
        [-1, -1],
        [0, 1],
        [2, -1],
      ],
      slot_M: [2, 3, 4],
    });
  });
});

/** The model's window is 8 tokens. Prompts of 3 to 13 tokens, and completions of up to 21. */
describe("completions", () => {
  const dir = fixture("models/gemma2-tiny");
  let config: ModelConfig;
  let parameters: Parameters;
  beforeAll(async () => {
    // Two layers, one of each kind, compile in half the time of four.
    const whole = await readModelConfig(dir);
    config = { ...whole, layerTypes: whole.layerTypes.slice(0, 2) };
    parameters = createParameters(await loadWeights(dir, whole));
  });
  afterAll(() => disposeParameters(parameters));
  beforeEach(() => vi.stubEnv("HEDDLE_JIT", "0"));
  afterEach(() => vi.unstubAllEnvs());

  const prompts = [
    [2, 5, 9, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20],
    [2, 5, 7, 30],
    [2, 5, 8],
    [40, 41, 42, 43, 44],
  ];
  const N = 21;

  function sample(
    samples: number,
    stopIds: number[],
    stages: Stage[],
    more: Partial<SamplingOptions> = {},
  ): Completion[] {
    const list = listPrompts(prompts, sizesOf(prompts, { rows: prompts.length, samples, maxNewTokens: N }));
    const choice = { temperature: 1, topK: 0, topP: 1, logprobTemperature: 1, seed: 3 };
    return sampleCompletions(
      parameters,
      config,
      list,
      { ...choice, samples, maxNewTokens: N, stopIds, ...more },
      stages,
    );
  }

  /** Stop tokens that some completions have early, others late or never. */
  function stopsOf(samples: number): number[] {
    const whole = sample(samples, [], [{ completions: prompts.length * samples, slots: N - 1 }]);
    return [whole[0]!.ids[2]!, whole[1]!.ids[4]!, whole[2]!.ids[9]!];
  }

  function expectSame(got: Completion[], expected: Completion[]): void {
    expect(got.map(({ ids }) => ids)).toEqual(expected.map(({ ids }) => ids));
    const differences = got.flatMap(({ logprobs }, c) =>
      logprobs.map((x, n) => Math.abs(x - expected[c]!.logprobs[n]!)),
    );
    expect(Math.max(...differences)).toBeLessThan(1e-4);
  }

  describe.each([1, 3])("%i of a prompt", (samples) => {
    const C = prompts.length * samples;
    const full = { completions: C, slots: N - 1 };
    test.each([
      ["with more slots later", [{ ...full, slots: 3 }, full]],
      ["with slots for less, then for more than a window", [{ ...full, slots: 5 }, { ...full, slots: 11 }, full]],
      ["with fewer completions later", [full, { ...full, completions: Math.ceil(C / 2) }]],
      ["down to one", [full, { ...full, completions: Math.ceil(C / 2) }, { ...full, completions: 1 }]],
      ["with both", [{ ...full, slots: 4 }, full, { ...full, completions: Math.ceil(C / 4) }]],
    ])("are the same %s", (_, stages) => {
      const stopIds = stopsOf(samples);
      const expected = sample(samples, stopIds, [full]);
      expectSame(sample(samples, stopIds, stages), expected);
      const lengths = expected.map(({ ids }) => ids.length);
      expect(new Set(lengths).size).toBeGreaterThan(2);
    });
  });

  test("that come to a stop text are the same in stages", () => {
    const full = { completions: 12, slots: N - 1 };
    const texts = stopsOf(3).map((id) => `${id},`);
    const stopping = { stopTexts: stopTexts(texts, (id) => Buffer.from(`${id},`), config.vocabSize) };
    const upToText = (completions: Completion[]) =>
      completions.map(({ ids, logprobs }) => {
        const end = ids.findIndex((id) => texts.includes(`${id},`)) + 1 || ids.length;
        return { ids: ids.slice(0, end), logprobs: logprobs.slice(0, end) };
      });
    const stages = [{ ...full, slots: 4 }, full, { ...full, completions: 3 }];
    expectSame(upToText(sample(3, [], stages, stopping)), upToText(sample(3, [], [full])));
  });

  test("in stages are the same where nothing ends, and where everything ends at once", () => {
    const stages = [
      { completions: 4, slots: 4 },
      { completions: 4, slots: 20 },
      { completions: 1, slots: 20 },
    ];
    const one = [{ completions: 4, slots: 20 }];
    expectSame(sample(1, [], stages), sample(1, [], one));
    const every = Array.from({ length: config.vocabSize }, (_, id) => id);
    expectSame(sample(1, every, stages), sample(1, every, one));
    expect(sample(1, every, stages).map(({ ids }) => ids.length)).toEqual([1, 1, 1, 1]);
  });

  test("in stages are the same compiled", () => {
    const stopIds = stopsOf(2);
    const stages = [
      { completions: 8, slots: 4 },
      { completions: 8, slots: 20 },
      { completions: 2, slots: 20 },
    ];
    const eager = sample(2, stopIds, stages);
    vi.unstubAllEnvs();
    expectSame(sample(2, stopIds, stages), eager);
  });
});
