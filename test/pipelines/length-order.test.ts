import { expect, test } from "vitest";
import { inOrder, longestFirst } from "../../pipelines/length-order.js";

test("longestFirst sorts so many rows at a time, and keeps the order of those of one length", () => {
  const sorted = longestFirst(["a", "bbb", "cc", "dd", "e", "ffff"], ({ length }) => length, 4);
  expect(sorted.map(({ row }) => row)).toEqual(["bbb", "cc", "dd", "a", "ffff", "e"]);
  expect(sorted.map(({ place }) => place)).toEqual([1, 2, 3, 0, 5, 4]);
});

test("inOrder hands on what came early when those before it have come", async () => {
  const used: string[] = [];
  const hand = inOrder(async (value: string) => void used.push(value));
  await hand(2, "c");
  await hand(1, "b");
  expect(used).toEqual([]);
  await hand(0, "a");
  expect(used).toEqual(["a", "b", "c"]);
  await hand(3, "d");
  expect(used).toEqual(["a", "b", "c", "d"]);
});
