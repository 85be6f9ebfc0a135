/**
 * The logits of a model for rows of token ids of one length, as random_models.py asks for them: logits.js DIR reads
 * DIR/ids.json, a list of lists, and writes DIR/logits.safetensors.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { writeSafetensors } from "safetensors-ts";
import { jit } from "tfjs-jit";
import { hiddenStates, logits } from "../../model/forward.js";
import { loadModel } from "../../model/loaded.js";
import { type Parameters, readParameters } from "../../model/parameters.js";
import { type ListTensors, listTensors } from "../../model/scoring.js";
import { linear, listRows } from "../../model/token-list.js";

for (const dir of process.argv.slice(2)) {
  const rows = JSON.parse(await readFile(join(dir, "ids.json"), "utf8")) as number[][];
  const [B, T] = [rows.length, rows[0]!.length];
  const { folder, parameters } = await loadModel(dir);
  const sizes = { slots: T, queries: 0, sharedPrefix: 0, size: B * T, wantedSize: 0, inOrder: true };
  const { config } = folder;
  const run = jit((parameters: Parameters, { block }: Pick<ListTensors, "block">) => {
    const weights = readParameters(parameters);
    return logits(weights, config, hiddenStates(weights, config, block, null));
  });
  const { block } = listTensors(
    listRows(
      rows.map((ids) => ({ ...linear(ids), wanted: [] })),
      sizes,
    ),
  );
  const values = run(parameters, { block }).dataSync() as Float32Array;
  const data = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const shape = [B, T, config.vocabSize];
  await writeSafetensors(join(dir, "logits.safetensors"), [{ name: "logits", dtype: "F32", shape, data }]);
}
