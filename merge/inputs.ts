// The checkpoints that go into a merge: opened together, checked against each other, read together in chunks.
import { BITS, type Checkpoint, isFloatDtype, openCheckpoint, SafetensorsError, toFloat32 } from "safetensors-ts";

/** Elements that are read at a time of every input: 4 MB of float32 each. */
const CHUNK_ELEMENTS = 2 ** 20;

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

/** The same elements of one tensor in every input, as float32; `start` is the index of the first. */
export interface Chunk {
  readonly start: number;
  readonly init: Float32Array;
  readonly runs: readonly Float32Array[];
}

/** Reads a tensor from all inputs, chunk by chunk, one ahead of the reader. */
export async function* readChunks({ init, runs }: Inputs, name: string): AsyncGenerator<Chunk> {
  const sources = [init, ...runs].map((checkpoint) => {
    const { begin, end, dtype } = checkpoint.info(name);
    return { checkpoint, dtype, elementBytes: BITS[dtype] / 8, elements: (8 * (end - begin)) / BITS[dtype] };
  });
  const { elements } = sources[0]!;
  const read = (start: number) => {
    const end = Math.min(start + CHUNK_ELEMENTS, elements);
    const parts = sources.map(async ({ checkpoint, dtype, elementBytes }) => {
      const bytes = await checkpoint.readRange(name, start * elementBytes, end * elementBytes);
      return toFloat32(bytes, dtype);
    });
    const all = Promise.all(parts);
    // A reader that stops early never looks at the chunk read ahead, nor at its failure.
    all.catch(() => {});
    return all;
  };
  let next = read(0);
  for (let start = 0; start < elements; start += CHUNK_ELEMENTS) {
    const [initValues, ...runValues] = (await next) as [Float32Array, ...Float32Array[]];
    if (start + CHUNK_ELEMENTS < elements) next = read(start + CHUNK_ELEMENTS);
    yield { start, init: initValues, runs: runValues };
  }
}

/** Throws where a value is infinite or not a number. `start` is the index of the first in its tensor. */
export function checkFinite(values: Float32Array, path: string, name: string, start: number): void {
  const index = values.findIndex((x) => !Number.isFinite(x));
  if (index < 0) return;
  throw new SafetensorsError(path, `tensor "${name}" holds ${values[index]} at element ${start + index}`, name);
}

/** Bytes of a tensor that is copied, not merged (integers, booleans). Throws unless all inputs hold the same. */
export async function* copyChunks({ init, runs }: Inputs, name: string): AsyncGenerator<Uint8Array> {
  const { begin, end, dtype } = init.info(name);
  for (let at = 0; at < end - begin; at += CHUNK_ELEMENTS) {
    const to = Math.min(at + CHUNK_ELEMENTS, end - begin);
    const bytes = await init.readRange(name, at, to);
    for (const run of runs) {
      const other = run.info(name);
      if (other.dtype !== dtype || Buffer.compare(bytes, await run.readRange(name, at, to)) !== 0) {
        const problem = `tensor "${name}" of dtype ${other.dtype} differs from ${init.path}'s of ${dtype}: only float tensors can be merged`;
        throw new SafetensorsError(run.path, problem, name);
      }
    }
    yield bytes;
  }
}
