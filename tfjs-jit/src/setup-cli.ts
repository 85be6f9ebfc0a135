// npm run setup [-- --cpu | --gpu]

import { parseArgs } from "node:util";
import { type Device, SetupError, setup } from "./setup.js";
import { showProgress } from "./setup-progress.js";

const usage = "usage: npm run setup [-- --cpu | --gpu]   (default: gpu where an NVIDIA driver answers)";

/** Exit codes as everywhere in heddle: 2 for what the user can put right, 75 for interrupted. */
async function main(): Promise<number> {
  const interrupt = new AbortController();
  // Not once: a Ctrl-C may come twice, from the terminal and from npm.
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => interrupt.abort());
  try {
    const device = readDevice(process.argv.slice(2));
    if (device === "help") {
      console.log(usage);
      return 0;
    }
    const progress = showProgress(process.stderr);
    await setup({ ...(device && { device }), log: console.log, progress, signal: interrupt.signal });
    return 0;
  } catch (error) {
    if (interrupt.signal.aborted) {
      console.error("\ninterrupted; npm run setup goes on from here");
      return 75;
    }
    if (!(error instanceof SetupError)) throw error;
    console.error(`${process.stderr.isTTY ? "\r\x1b[K" : ""}error: ${error.message}`);
    return 2;
  }
}

function readDevice(args: string[]): Device | "help" | undefined {
  const flag = { type: "boolean" } as const;
  let values: { cpu?: boolean; gpu?: boolean; help?: boolean };
  try {
    ({ values } = parseArgs({ args, options: { cpu: flag, gpu: flag, help: flag } }));
  } catch {
    throw new SetupError(`${args.join(" ")}: ${usage}`);
  }
  if (values.help) return "help";
  if (values.cpu && values.gpu) throw new SetupError(`--cpu and --gpu exclude each other. ${usage}`);
  return values.cpu ? "cpu" : values.gpu ? "gpu" : undefined;
}

// Not exitCode: what an interrupted pip or compiler started may hold its output open for a while.
process.exit(await main());
