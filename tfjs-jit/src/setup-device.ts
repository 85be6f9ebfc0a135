// Is there an NVIDIA GPU that TensorFlow can use?

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { run } from "./setup-run.js";

/** The first GPU as its driver tells it; `usable` is whether the driver is new enough for the GPU build's CUDA 12. */
export type Nvidia = {
  name: string;
  driver: string;
  usable: boolean /** Bytes; null where /proc alone tells of it. */;
  memory: number | null;
};

/** CUDA 12 on Linux needs driver 525.60.13: CUDA Toolkit release notes, table "CUDA Toolkit and minimum driver version". */
const oldestDriver = 525;

/** Asks the driver: nvidia-smi, else /proc. undefined when no driver answers. `root` is / but in tests. */
export async function findNvidia(env: NodeJS.ProcessEnv, root = "/"): Promise<Nvidia | undefined> {
  // The device files are there only where a GPU was passed into a container; /dev/dxg is WSL's.
  if (!["dev/nvidiactl", "dev/dxg"].some((device) => existsSync(join(root, device)))) return undefined;
  const query = ["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"];
  const ran = await run("nvidia-smi", query, { env, timeoutMs: 20_000 });
  const [name, driver, mebibytes] = ran?.code === 0 ? ran.stdout.split("\n")[0]!.split(", ") : [];
  if (name && driver) return describe(name, driver.trim(), Number(mebibytes) * 2 ** 20 || null);

  const proc = join(root, "proc/driver/nvidia/version");
  const version = existsSync(proc) && /\s(\d+(?:\.\d+)+)\s/.exec(readFileSync(proc, "utf8"))?.[1];
  return version ? describe("NVIDIA GPU", version, null) : undefined;
}

const describe = (name: string, driver: string, memory: number | null): Nvidia => ({
  name,
  driver,
  usable: Number.parseInt(driver, 10) >= oldestDriver,
  memory,
});
