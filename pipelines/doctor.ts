/** `heddle doctor`: what this machine has, and what to do next. Loads no TensorFlow, so it answers where that does not. */
import { readFileSync } from "node:fs";
import { availableParallelism, cpus, freemem, totalmem } from "node:os";
import { Command } from "@commander-js/extra-typings";
import type { SetupFacts } from "tfjs-jit/setup";
import { packageRoot } from "../config/paths.js";
import { UserError } from "./errors.js";
import { collectSet, existingFile } from "./flags.js";

export const doctorCommand = new Command("doctor")
  .description("show what this machine has: TensorFlow, GPU, compiler, memory")
  .option("--json", "one JSON object", false)
  .option(
    "--plan <config>",
    "the memory that the stages of a config will take; code 2 where it is too much",
    existingFile,
  )
  .option("--set <key=value>", "with --plan: override a value of the config", collectSet)
  .action(async (options) => {
    const { setupFacts } = await import("tfjs-jit/setup");
    const facts: MachineFacts = { ...machineFacts(process.env), setup: await setupFacts() };
    if (options.set !== undefined && options.plan === undefined) throw new UserError("--set: expected it with --plan");
    if (options.plan !== undefined) {
      const { describePlans, planConfig } = await import("./plan.js");
      const plans = await planConfig(options.plan, options.set ?? [], facts.setup.link.binding?.device ?? "cpu");
      const available = deviceMemory(facts);
      if (options.json) process.stdout.write(`${JSON.stringify({ available, plans }, null, 2)}\n`);
      const text = describePlans(plans, available);
      if (!options.json) process.stdout.write(text);
      return;
    }
    const next = nextSteps(facts);
    process.stdout.write(options.json ? `${JSON.stringify({ ...facts, next }, null, 2)}\n` : describe(facts, next));
  });

export interface MachineFacts {
  heddle: string;
  node: { version: string; needed: string; isSupported: boolean };
  platform: string;
  cpu: { model: string; cores: number };
  /** Bytes; the total is the container's where that has less. */
  memory: { total: number; free: number };
  /** HEDDLE_* variables that are set. */
  environment: Record<string, string>;
  setup: SetupFacts;
}

/** Bytes that computing may take: of the GPU where TensorFlow is set up for one, else of the machine. */
function deviceMemory({ setup, memory }: MachineFacts): number {
  const onGpu = setup.link.binding?.device === "gpu" && setup.nvidia?.memory;
  return onGpu || memory.total;
}

function machineFacts(env: NodeJS.ProcessEnv): Omit<MachineFacts, "setup"> {
  const { version, engines } = JSON.parse(readFileSync(new URL("package.json", packageRoot), "utf8")) as {
    version: string;
    engines: { node: string };
  };
  const constrained = process.constrainedMemory() || Number.POSITIVE_INFINITY;
  const heddle = Object.entries(env).filter((entry): entry is [string, string] => entry[0].startsWith("HEDDLE_"));
  return {
    heddle: version,
    node: { version: process.versions.node, needed: engines.node, isSupported: isSupportedNode(process.versions.node) },
    platform: `${process.platform} ${process.arch}`,
    cpu: { model: cpus()[0]?.model.trim() ?? "unknown", cores: availableParallelism() },
    memory: { total: Math.min(totalmem(), constrained), free: Math.min(freemem(), constrained) },
    environment: Object.fromEntries(heddle.sort()),
  };
}

/** ^20.19 || >=22.13, which package.json says to npm. */
export function isSupportedNode(version: string): boolean {
  const [major, minor] = version.split(".").map(Number) as [number, number];
  return (major === 20 && minor >= 19) || (major === 22 && minor >= 13) || major > 22;
}

/** What the user should do, most urgent first; nothing when all is ready. */
export function nextSteps({ node, setup }: MachineFacts): string[] {
  const steps: string[] = [];
  if (!node.isSupported) steps.push(`install Node ${node.needed}; this is ${node.version}`);
  if (setup.nvidia && !setup.nvidia.usable)
    steps.push("update the NVIDIA driver to 525 or newer to compute on the GPU");

  const { binding, state } = setup.link;
  if (state === "ready" && binding?.version === setup.wanted) {
    if (setup.device === "gpu" && binding.device === "cpu") {
      steps.push("npm run setup -- --gpu   to compute on the GPU; TensorFlow is set up for the CPU");
    }
    return steps;
  }
  if (setup.unsupported) return [...steps, setup.unsupported];
  const { folder, freeBytes, neededBytes } = setup.cache;
  if (neededBytes > 0 && !setup.python) steps.push("install Python with pip (Debian, Ubuntu: apt install python3-pip)");
  if (!setup.compiler) steps.push("install a C++ compiler (Debian, Ubuntu: apt install g++), or name one in CXX");
  if (freeBytes < neededBytes) {
    steps.push(`free ${gigabytes(neededBytes - freeBytes)} on the disk of ${folder}, or set HEDDLE_CACHE`);
  }
  steps.push("npm run setup");
  return steps;
}

/** One line a subject, for people. */
export function describe(facts: MachineFacts, next: readonly string[]): string {
  const { node, cpu, memory, setup } = facts;
  const { binding, state, path } = setup.link;
  const linked = binding ? `${binding.version} (${binding.device.toUpperCase()})` : "";
  const inCache = setup.tensorflow.map(({ folder, whole }) => (whole ? folder : `${folder} (damaged)`));
  const lines: [string, string][] = [
    ["heddle", facts.heddle],
    ["Node", node.isSupported ? node.version : `${node.version}, needs ${node.needed}`],
    ["platform", `${facts.platform}, ${cpu.cores} cores (${cpu.model})`],
    ["memory", `${gigabytes(memory.total)}, ${gigabytes(memory.free)} free`],
    ["cache", `${setup.cache.folder}, ${gigabytes(setup.cache.freeBytes)} free`],
    [
      "Python",
      setup.python ? `${setup.python.version}, pip ${setup.python.pip} (${setup.python.command})` : "none with pip",
    ],
    ["compiler", setup.compiler ? `${setup.compiler.version} (${setup.compiler.command})` : "none"],
    ["GPU", setup.nvidia ? `${setup.nvidia.name}, driver ${setup.nvidia.driver}` : "none: no NVIDIA driver answers"],
    ["TensorFlow", inCache.join(", ") || `${setup.wanted} is not in the cache`],
    [
      "binding",
      {
        ready: `${linked}, ${path}`,
        foreign: `${path} was not made by set-up`,
        damaged: `${linked}, but its TensorFlow is damaged`,
        dangling: `${path} leads to a file that is gone`,
        missing: `${path} is missing`,
      }[state],
    ],
    ...Object.entries(facts.environment),
    ...next.map((step): [string, string] => ["next", step]),
  ];
  if (next.length === 0) lines.push(["ready", `TensorFlow ${linked}`]);
  const width = Math.max(...lines.map(([subject]) => subject.length)) + 2;
  return lines.map(([subject, text]) => `${subject.padEnd(width)}${text}\n`).join("");
}

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`;
