/** `heddle score` with a model for sequence classification. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openFolder } from "../../model/load.js";
import { run } from "../../pipelines/tasks/score.js";
import { writeRewardModel } from "../distill/reward-folder.js";
import { fixture, readGolden } from "../model/golden.js";
import { newFolder, readJsonl, rowsFile, taskContext } from "./command.js";

test("each row gets the scores of its labels, as transformers' logits, in batches of any size", async () => {
  const model = fixture("models/gemma2-tiny-reward");
  const rows = JSON.parse(await readFile(join(model, "rows.json"), "utf8")) as number[][];
  const expected = (await readGolden(model)).logits!.arraySync() as number[][];
  const { data, out } = rowsFile(rows.map((ids, row) => ({ ids, name: `row ${row}` })));
  const params = { model, data, out, batchSize: 2, system: "error" as const };
  const summary = await run(params, taskContext());
  const scored = readJsonl<{ ids: number[]; name: string; scores: number[] }>(out);
  expect(scored.map(({ name }) => name)).toEqual(["row 0", "row 1", "row 2"]);
  const close = (values: number[]) => values.map((value) => expect.closeTo(value, 4));
  expect(scored.map(({ scores }) => scores)).toEqual(expected.map(close));
  const mean = [0, 1, 2].map((label) => expected.reduce((sum, row) => sum + row[label]!, 0) / 3);
  expect(summary).toEqual({ rows: 3, mean_scores: close(mean) });
});

test("a conversation is scored as the chat template renders it, to the end of its last turn", async () => {
  const model = join(newFolder(), "judge");
  await writeRewardModel(fixture("arithmetic/student"), model);
  const { chat } = await openFolder(model);
  const answered = "<start_of_turn>user\n1+2=<end_of_turn>\n<start_of_turn>model\n3<end_of_turn>\n";
  const ids = [await chat.textIds(answered), await chat.textIds("<start_of_turn>user\n1+2=<end_of_turn>\n")];
  const { data, out } = rowsFile([{ prompt: "1+2=", completion: "3" }, { prompt: "1+2=" }]);
  await run({ model, data, out, batchSize: 2, system: "error" }, taskContext());
  expect(readJsonl<{ ids: number[] }>(out).map((row) => row.ids)).toEqual(ids);
});

test("a score that is no number ends it, since JSON has none for it", async () => {
  const model = join(newFolder(), "judge");
  await writeRewardModel(fixture("arithmetic/student"), model, { factor: 3e38 });
  const { data, out } = rowsFile([{ ids: [2, 5] }]);
  // Which of them depends on the order of summation.
  const message = new RegExp(
    `^${model}: the score of ${data}:1 is (NaN|-?Infinity), expected a finite number: the model's activations overflow; ` +
      "set dtype float32, or take another model$",
  );
  const error: unknown = await run({ model, data, out, batchSize: 1, system: "error" }, taskContext()).catch((e) => e);
  expect(error).toMatchObject({ name: "ModelError", message: expect.stringMatching(message) });
});
