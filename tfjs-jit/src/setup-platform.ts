// Where the pinned wheels run: they are built for x86-64 and glibc.

import { SetupError } from "./setup-error.js";

/** Throws where no wheel that this version pins can run. `glibc` is undefined where the C library is another one. */
export function checkPlatform(platform: string, arch: string, glibc: () => string | undefined = glibcVersion): void {
  const only = "TensorFlow can be set up on linux x64 with glibc 2.27 or newer only";
  if (platform !== "linux" || arch !== "x64") throw new SetupError(`${only}; this is ${platform} ${arch}`);
  const version = glibc();
  if (!version) throw new SetupError(`${only}; this linux has another C library (musl?)`);
  const [major, minor] = version.split(".").map(Number) as [number, number];
  if (major < 2 || (major === 2 && minor < 27)) throw new SetupError(`${only}; this is glibc ${version}`);
}

function glibcVersion(): string | undefined {
  const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } };
  return header.glibcVersionRuntime;
}
