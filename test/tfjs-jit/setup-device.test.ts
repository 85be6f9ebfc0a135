// How an NVIDIA driver is found, and how a download is shown.

import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { expect, test } from "vitest";
import { findNvidia } from "../../tfjs-jit/src/setup-device.js";
import { progressBar, showProgress } from "../../tfjs-jit/src/setup-progress.js";

/** A root folder with these files; bin/ is on PATH. */
function root(files: Record<string, string>): { root: string; env: NodeJS.ProcessEnv } {
  const folder = mkdtempSync(join(tmpdir(), "heddle-device-"));
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text, { mode: 0o755 });
  }
  return { root: folder, env: { PATH: join(folder, "bin") } };
}

const smi = (text: string) => `#!/bin/sh\necho "${text}"\n`;
const proc =
  "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.14  Release Build\nGCC version: gcc 12.2.0\n";

test.each([
  ["nothing", {}, undefined],
  ["a driver without a device (a container)", { "bin/nvidia-smi": smi("NVIDIA H100, 550.54.14") }, undefined],
  [
    "two GPUs",
    {
      "dev/nvidiactl": "",
      "bin/nvidia-smi": smi("NVIDIA H100 80GB HBM3, 550.54.14, 81559\nNVIDIA H100 80GB HBM3, 550.54.14, 81559"),
    },
    { name: "NVIDIA H100 80GB HBM3", driver: "550.54.14", usable: true, memory: 81559 * 2 ** 20 },
  ],
  [
    "WSL",
    { "dev/dxg": "", "bin/nvidia-smi": smi("NVIDIA GeForce RTX 4090, 560.94, 24564") },
    { name: "NVIDIA GeForce RTX 4090", driver: "560.94", usable: true, memory: 24564 * 2 ** 20 },
  ],
  [
    "a driver too old for CUDA 12",
    { "dev/nvidiactl": "", "bin/nvidia-smi": smi("Tesla T4, 470.57.02") },
    { name: "Tesla T4", driver: "470.57.02", usable: false, memory: null },
  ],
  [
    "no nvidia-smi",
    { "dev/nvidiactl": "", "proc/driver/nvidia/version": proc },
    { name: "NVIDIA GPU", driver: "550.54.14", usable: true, memory: null },
  ],
  ["a driver that does not answer", { "dev/nvidiactl": "", "bin/nvidia-smi": "#!/bin/sh\nexit 9\n" }, undefined],
])("findNvidia with %s", async (_, files, expected) => {
  const machine = root(files as Record<string, string>);
  expect(await findNvidia(machine.env, machine.root)).toEqual(expected);
});

test("progressBar shows share, bytes, speed and time left", () => {
  expect(progressBar(50e6, 200e6, 1000)).toBe(`[${"#".repeat(8)}${".".repeat(22)}] 50 MB of 200 MB, 50 MB/s, 3 s left`);
  expect(progressBar(0, 200e6, 0)).toBe(`[${".".repeat(30)}] 0 MB of 200 MB, 0 MB/s`);
});

test("showProgress draws and erases a bar on a terminal, and prints a line for each quarter elsewhere", () => {
  const written = (isTTY: boolean) => {
    const texts: string[] = [];
    const show = showProgress({ isTTY, write: (text: string) => texts.push(text) } as unknown as NodeJS.WriteStream);
    for (const done of [1e6, 30e6, 40e6, 100e6]) show(done, 100e6);
    return texts;
  };
  expect(written(false)).toEqual(["downloaded 30 MB of 100 MB\n", "downloaded 100 MB of 100 MB\n"]);
  const terminal = written(true);
  expect(terminal).toHaveLength(4);
  expect(terminal.at(-1)).toBe("\r\x1b[K");
});
