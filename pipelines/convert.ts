/** `heddle convert`: a GGUF file, or a model folder in another dtype or other shards, to a model folder. */
import { Command, Option } from "@commander-js/extra-typings";
import { DTYPES } from "../model/json.js";
import { withByteProgress } from "./byte-progress.js";
import { bytes, existingPath } from "./flags.js";

export const convertCommand = new Command("convert")
  .description("a GGUF file (Gemma 2 and 3) to a model folder; a model folder to another dtype or shard size")
  .argument("<model>", "the .gguf file, or a model folder", existingPath)
  .argument("<out>", "folder to write")
  .addOption(
    new Option(
      "--dtype <dtype>",
      "what to store (default: bfloat16 for a GGUF file, what each tensor is for a folder)",
    ).choices(DTYPES),
  )
  .option("--shard-size <size>", "most bytes of weights in a file, such as 5GB", bytes, 5e9)
  .option("--overwrite", "replace <out> if it is a model already", false)
  .action(async (from, out, options) => {
    const { convertModel } = await import("../convert/convert.js");
    await withByteProgress("convert", undefined, (run) => convertModel({ from, out, ...options, ...run }));
    process.stdout.write(`wrote ${out}\n`);
  });
