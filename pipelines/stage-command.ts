/** A command that takes a config file, checks it here, and runs a resumable task with it. */
import { Command } from "@commander-js/extra-typings";
import type { ConfigCommand } from "./config.js";
import { collectSet } from "./flags.js";

/** `heddle NAME CONFIG [--set key=value ...]`: the task of that name, in pipelines/tasks, is given the checked config. */
export const stageCommand = (name: ConfigCommand, description: string) =>
  new Command(name)
    .description(description)
    .argument("<config>", "YAML file; paths in it are relative to the working directory")
    .option("--set <key=value>", "use this value instead of the file's, e.g. --set rl.steps=50; repeatable", collectSet)
    .addHelpText("after", "\nInterrupted, it exits with 75: the same command again goes on from the last saved step.")
    .action(async (path, { set = [] }) => {
      const { loadConfig } = await import("./config.js");
      const config = await loadConfig(path, { set, command: name });
      const { runInForeground } = await import("./foreground.js");
      process.stdout.write(await runInForeground<string>(name, config, { isResumable: true }));
    });
