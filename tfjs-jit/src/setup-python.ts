// Python, which set-up needs for two things: pip fetches the wheels, and zipfile unpacks them.

import { SetupError } from "./setup-error.js";
import { run } from "./setup-run.js";

/** A Python that has pip. */
export type Python = { command: string; version: string; pip: string };

const install = "Install them (Debian, Ubuntu: apt install python3-pip), then run npm run setup again.";

/** python3 or python on PATH, whichever has pip. */
export async function findPython(env: NodeJS.ProcessEnv): Promise<Python> {
  const withoutPip: string[] = [];
  for (const command of ["python3", "python"]) {
    const ran = await run(command, ["-c", "import platform, pip; print(platform.python_version(), pip.__version__)"], {
      env,
    });
    const [version, pip] = ran?.stdout.trim().split(" ") ?? [];
    if (ran?.code === 0 && version && pip) return { command, version, pip };
    if (ran?.stderr.includes("No module named")) withoutPip.push(command);
  }
  if (withoutPip.length > 0) throw new SetupError(`${withoutPip.join(" and ")} on PATH: without pip. ${install}`);
  throw new SetupError(`no python3 and no python on PATH; python with pip downloads TensorFlow. ${install}`);
}
