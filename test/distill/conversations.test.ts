/** What is learned of conversations with several answers. */
import { beforeAll, describe, expect, test } from "vitest";
import { place, type Row } from "../../distill/data.js";
import { encodeCompletions, encodeConversations, encodePrompts, sizesOfConversations } from "../../distill/encode.js";
import { listSequences } from "../../model/batch.js";
import { type ModelFolder, openModel } from "../../model/load.js";
import { fixture } from "../model/golden.js";

let folder: ModelFolder;
beforeAll(async () => {
  folder = await openModel(fixture("arithmetic/student"));
});

const read = { system: "error" } as const;
const user = (content: string) => ({ role: "user", content });
const model = (content: string) => ({ role: "assistant", content });
const row: Row = { messages: [user("1"), model("23"), user("4"), model(" 567 ")] };
const encode = async (row: Row, maxNewTokens: number) => {
  const rows = await encodePrompts(folder, [row], { ...read, maxNewTokens: 1 });
  const [conversation] = await encodeConversations(folder, rows, maxNewTokens);
  const [completion] = await encodeCompletions(folder, rows, maxNewTokens);
  return { row: rows[0]!, ...conversation!, last: completion! };
};
const tokens = (text: string) => folder.tokenizer!.encode(text);
const bits = (counted: readonly boolean[]) => counted.map(Number).join("");

describe("encodeConversations", () => {
  test("counts every answer with the token that ends it, and nothing that the user says", async () => {
    const { prompt, completion, counted, row: encoded, last } = await encode(row, 10);
    expect(prompt).toEqual([2, ...(await tokens("<start_of_turn>user\n1<end_of_turn>\n<start_of_turn>model\n"))]);
    const between = await tokens("\n<start_of_turn>user\n4<end_of_turn>\n<start_of_turn>model\n");
    const [first, second] = [await tokens("23<end_of_turn>"), await tokens("567<end_of_turn>")];
    expect(completion).toEqual([...first, ...between, ...second]);
    expect(bits(counted)).toBe("1".repeat(first.length) + "0".repeat(between.length) + "1".repeat(second.length));
    expect([...prompt, ...completion]).toEqual([...encoded.prompt, ...last]);
    expect(last).toEqual(second);
  });

  test("counts so many tokens of each answer, which stand before what follows whole", async () => {
    const [whole, cut] = [await encode(row, 10), await encode(row, 1)];
    expect(cut.completion).toEqual(whole.completion.slice(0, cut.completion.length));
    const between = whole.counted.filter((counts) => !counts).length;
    const first = (await tokens("23<end_of_turn>")).length;
    expect(bits(cut.counted)).toBe(`1${"0".repeat(first - 1 + between)}1`);
    expect(cut.last).toEqual((await tokens("567")).slice(0, 1));
  });

  test("takes a completion for the answer to a prompt", async () => {
    const [text, talk] = [{ prompt: "1", completion: "2" }, { messages: [user("1"), model("2")] }];
    const { row: _, ...expected } = await encode(talk, 10);
    expect(await encode(text, 10)).toMatchObject(expected);
    expect(expected.completion).toEqual(await tokens("2<end_of_turn>"));
    expect(bits(expected.counted)).toBe("1".repeat(expected.completion.length));
  });

  test("names a row without an answer", async () => {
    await expect(encode({ messages: [user("1")], [place]: "data.jsonl:3" }, 10)).rejects.toThrow(
      "data.jsonl:3: completion: expected the text to learn, got none",
    );
  });

  test("takes what texts spell like control tokens for text, unless told otherwise", async () => {
    const spelled = { prompt: "1<end_of_turn>", completion: "2<end_of_turn>3" };
    const idsOf = async (allowControlTokens: boolean) => {
      const rows = await encodePrompts(folder, [spelled], { ...read, allowControlTokens, maxNewTokens: 1 });
      const [conversation] = await encodeConversations(folder, rows, 100);
      return [conversation!.prompt, conversation!.completion].map((ids) => ids.filter((id) => id === 6).length);
    };
    expect(await idsOf(false)).toEqual([1, 1]);
    expect(await idsOf(true)).toEqual([2, 2]);
  });
});

test("a batch wants hidden states before the tokens that count, and those alone are its targets", async () => {
  const conversations = [{ prompt: [2, 5], completion: [7, 8, 9, 10], counted: [true, false, false, true] }];
  const sizes = sizesOfConversations(conversations, { rows: 1, maxNewTokens: 2 });
  expect(sizes.maxNewTokens).toBe(4);
  const [{ prompt, completion, counted }] = conversations as [(typeof conversations)[0]];
  const batch = listSequences([{ prompt, completions: [completion], counted: [counted] }], sizes);
  // The last token, 10, predicts nothing: 2 5 7 8 9. Predicted are 7 by 5, and 10 by 9.
  expect([...batch.tokens.ids]).toEqual([2, 5, 7, 8, 9]);
  expect([...batch.tokens.positions]).toEqual([0, 1, 2, 3, 4]);
  expect([...batch.tokens.wanted.tokens]).toEqual([1, 4]);
  expect([...batch.targets]).toEqual([7, 10]);
  expect([...batch.counted]).toEqual([1, 1]);
});
