/** The `heddle` program: one file a command, each of which loads its work only when it is run. */
import { readFileSync } from "node:fs";
import { Command } from "@commander-js/extra-typings";
import { packageRoot } from "../config/paths.js";
import { chatCommand } from "./chat.js";
import { convertCommand } from "./convert.js";
import { distillCommand } from "./distill.js";
import { doctorCommand } from "./doctor.js";
import { emaCommand } from "./ema.js";
import { evalCommand } from "./eval.js";
import { runProgram } from "./exit.js";
import { generateCommand } from "./generate.js";
import { inspectCommand } from "./inspect.js";
import { litiCommand } from "./liti.js";
import { mergeCommand } from "./merge.js";
import { pullCommand } from "./pull.js";
import { pushCommand } from "./push.js";
import { rlCommand } from "./rl.js";
import { scoreCommand } from "./score.js";
import { serveCommand } from "./serve.js";
import { sftCommand } from "./sft.js";
import { slerpCommand } from "./slerp.js";
import { warpCommand } from "./warp.js";

/** Runs a command line, without node and script, and returns the exit code. */
export function main(args: readonly string[]): Promise<number> {
  const { version } = JSON.parse(readFileSync(new URL("package.json", packageRoot), "utf8")) as { version: string };
  const program = new Command("heddle")
    .description("on-policy distillation and WARP for language models")
    .version(version)
    .hook("preAction", async (_, command) => {
      const { fetchModelFlags } = await import("./hub-models.js");
      await fetchModelFlags(command);
    })
    .addCommand(warpCommand)
    .addCommand(sftCommand)
    .addCommand(distillCommand)
    .addCommand(rlCommand)
    .addCommand(generateCommand)
    .addCommand(scoreCommand)
    .addCommand(evalCommand)
    .addCommand(chatCommand)
    .addCommand(serveCommand)
    .addCommand(mergeCommand)
    .addCommand(slerpCommand)
    .addCommand(litiCommand)
    .addCommand(emaCommand)
    .addCommand(convertCommand)
    .addCommand(pullCommand)
    .addCommand(pushCommand)
    .addCommand(inspectCommand)
    .addCommand(doctorCommand);
  return runProgram(program, args);
}
