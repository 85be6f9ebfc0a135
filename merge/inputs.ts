// The checkpoints that go into a merge: opened together, checked against each other.
import { type Checkpoint, isFloatDtype, openCheckpoint, SafetensorsError } from "safetensors-ts";

/** The init and one or more runs. */
export interface Inputs {
  readonly init: Checkpoint;
  readonly runs: readonly Checkpoint[];
}

/** Opens the checkpoints and checks their headers: every run must have the init's tensors, in the init's shapes. */
export async function withInputs<T>(
  initPath: string,
  runPaths: readonly string[],
  use: (inputs: Inputs) => Promise<T>,
): Promise<T> {
  const opened: Checkpoint[] = [];
  try {
    for (const path of [initPath, ...runPaths]) opened.push(await openCheckpoint(path));
    const [init, ...runs] = opened as [Checkpoint, ...Checkpoint[]];
    for (const run of runs) checkSameTensors(init, run);
    return await use({ init, runs });
  } finally {
    await Promise.all(opened.map((checkpoint) => checkpoint.close()));
  }
}

function checkSameTensors(init: Checkpoint, run: Checkpoint): void {
  const inRun = new Map(run.tensors.map((tensor) => [tensor.name, tensor]));
  for (const { name, shape, dtype } of init.tensors) {
    const other = inRun.get(name);
    if (!other) {
      throw new SafetensorsError(run.path, `has no tensor "${name}", which ${init.path} has in shape [${shape}]`, name);
    }
    if (`${shape}` !== `${other.shape}`) {
      const problem = `tensor "${name}" has shape [${other.shape}], expected [${shape}] as in ${init.path}`;
      throw new SafetensorsError(run.path, problem, name);
    }
    if (isFloatDtype(dtype) !== isFloatDtype(other.dtype)) {
      throw new SafetensorsError(run.path, `tensor "${name}" is ${other.dtype}, and ${dtype} in ${init.path}`, name);
    }
    inRun.delete(name);
  }
  for (const { name, shape } of inRun.values()) {
    const problem = `has a tensor "${name}" of shape [${shape}], which ${init.path} has not`;
    throw new SafetensorsError(run.path, problem, name);
  }
}
