/** `heddle convert`: a GGUF file, or a model folder in another dtype or other shards, to a model folder. */
import { Command, Option } from "@commander-js/extra-typings";
import { DTYPES } from "../model/json.js";
import { withByteProgress } from "./byte-progress.js";
import { bytes, modelPath } from "./flags.js";

export const convertCommand = new Command("convert")
  .description("a GGUF file (Gemma 2 and 3) to a model folder; a model folder to another dtype or shard size")
  .argument("<model>", "the .gguf file, a model folder, or org/name[@revision] of the hub", modelPath)
  .argument("<out>", "folder to write")
  .addOption(
    new Option(
      "--dtype <dtype>",
      "what to store (default: bfloat16 for a GGUF file, what each tensor is for a folder)",
    ).choices(DTYPES),
  )
  .option("--shard-size <size>", "most bytes of weights in a file, such as 5GB", bytes, 5e9)
  .option("--overwrite", "replace <out> if it is a model already", false)
  .action(async (model, out, options) => {
    const [{ convertModel }, { fetchModel }] = await Promise.all([
      import("../convert/convert.js"),
      import("./hub-models.js"),
    ]);
    const from = await fetchModel(model);
    await withByteProgress("convert", undefined, (run) => convertModel({ from, out, ...options, ...run }));
    process.stdout.write(`wrote ${out}\n`);
  });
