// Imported before tfjs: what must be true of the process before TensorFlow's library loads.

import util from "node:util";
import { useCompileCache } from "./compile-cache.js";
import { readsBfloat16On } from "./processor.js";
import { bindingLink, checkBinding, type Device, readLink } from "./setup.js";

checkBinding();

/** What TensorFlow was set up for. */
export const device: Device = readLink(bindingLink())?.device ?? "cpu";

/** Whether compiled products read a bfloat16 factor as it is, and make no float32 copy of it. */
export const readsBfloat16: boolean = readsBfloat16On(device);

// On a CPU, LLVM's second level compiles a tenth longer and makes programs that run no faster: XLA vectorises by itself.
// On a GPU its kernels would add in an order that changes from run to run, and roundings to bfloat16 that are written would be
// left out where that is faster.
process.env.XLA_FLAGS ??=
  device === "cpu"
    ? "--xla_backend_optimization_level=1"
    : "--xla_gpu_deterministic_ops=true --xla_allow_excess_precision=false";
useCompileCache(device);

// TensorFlow logs to stderr from C++ unless told otherwise before it loads: 3 leaves fatal errors. Others it also
// throws, except one that is none: it logs an error for each program that it reads from the compile cache.
process.env.TF_CPP_MIN_LOG_LEVEL ??= "3";
// Otherwise TensorFlow takes all of a GPU's memory at the first op.
process.env.TF_FORCE_GPU_ALLOW_GROWTH ??= "true";

// tfjs-node 4.22 calls two functions of which Node 22 warns, and of which Node 23 removed the first.
const legacy = util as unknown as Record<string, unknown>;
legacy.isNullOrUndefined = (value: unknown) => value === null || value === undefined;
legacy.isArray = Array.isArray;
