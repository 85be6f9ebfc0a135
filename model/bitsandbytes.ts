/**
 * Matrices as bitsandbytes stores them in safetensors, by way of transformers: in 4 bits `X.weight` holds codes, and
 * `X.weight.absmax`, `.quant_map` and `.quant_state.bitsandbytes__nf4` (JSON in bytes) stand beside it, with double
 * quantisation also `.nested_absmax` and `.nested_quant_map`; in 8 bits `X.SCB` has the absmax of each row.
 * Imports no TensorFlow.
 */
import type { openCheckpoint, TensorInfo } from "safetensors-ts";
import { ModelError } from "./errors.js";
import type { JsonObject } from "./json.js";
import { BLOCK, DYNAMIC_MAP, type Int8, NESTED_BLOCK, NF4, type Nf4, type Nf4Blocks } from "./quantise.js";

type Checkpoint = Awaited<ReturnType<typeof openCheckpoint>>;
type Infos = ReadonlyMap<string, TensorInfo>;

const STATE = ".quant_state.bitsandbytes__";

/** `quantization_config` of config.json as it can be read. */
export const isReadable = (value: unknown): boolean => {
  const { quant_method, load_in_4bit, load_in_8bit, bnb_4bit_quant_type } = (value ?? {}) as JsonObject;
  return (
    quant_method === "bitsandbytes" &&
    ((load_in_4bit === true && bnb_4bit_quant_type === "nf4") || load_in_8bit === true)
  );
};

/** Names of the tensors that belong to a quantised matrix of that name, whose dtype is that of its codes. */
export function partsOf(name: string, { dtype }: TensorInfo, infos: Infos): string[] {
  if (dtype === "I8") return [".SCB", ".weight_format"].map((end) => name.replace(/\.weight$/, end));
  return dtype === "U8" ? [...infos.keys()].filter((other) => other.startsWith(`${name}.`)) : [];
}

/**
 * A matrix in 4 bits. `absmax` stands by itself where there is no double quantisation.
 * @throws ModelError where a part is missing or is not what the others say
 */
export async function readNf4(
  dir: string,
  checkpoint: Checkpoint,
  infos: Infos,
  name: string,
  shape: readonly number[],
): Promise<Nf4 | Nf4Blocks> {
  const n = shape.reduce((a, b) => a * b, 1);
  const part = (end: string, dtype: string, length: number) => {
    const info = infos.get(`${name}${end}`);
    if (info === undefined)
      throw new ModelError(dir, `tensor "${name}${end}" is missing, which the 4 bits of "${name}" need`);
    const size = info.shape.reduce((a, b) => a * b, 1);
    if (info.dtype !== dtype || size !== length) {
      const got = `${info.dtype} [${info.shape}]`;
      throw new ModelError(
        dir,
        `tensor "${name}${end}" is ${got}, expected ${length} of ${dtype} for shape [${shape}]`,
      );
    }
    return info.name;
  };
  const bytes = async (...of: Parameters<typeof part>) => checkpoint.read(part(...of));
  const floats = async (end: string, length: number) => checkpoint.readFloat32(part(end, "F32", length));
  const table = async (end: string, values: Float32Array) => {
    if ((await floats(end, values.length)).some((value, i) => Math.abs(value - values[i]!) > 1e-6)) {
      throw new ModelError(dir, `tensor "${name}${end}" holds other values than bitsandbytes' table of that name`);
    }
  };

  const state = await readState(dir, checkpoint, infos, name);
  const fail = (key: string, expected: string): never => {
    const got = `"${key}" is ${JSON.stringify(state[key])}`;
    throw new ModelError(dir, `tensor "${name}${STATE}nf4": ${got}, expected ${expected}`);
  };
  const expect = (key: string, expected: unknown) => {
    const text = JSON.stringify(expected);
    if (JSON.stringify(state[key]) !== text) fail(key, text);
  };
  expect("quant_type", "nf4");
  expect("blocksize", BLOCK);
  expect("shape", shape);
  const codes = await bytes("", "U8", n / 2);
  await table(".quant_map", NF4);
  if (!infos.has(`${name}.nested_absmax`) && infos.get(`${name}.absmax`)?.dtype === "F32") {
    return { codes, absmax: await floats(".absmax", n / BLOCK) };
  }
  expect("nested_blocksize", NESTED_BLOCK);
  const offset = state.nested_offset;
  if (typeof offset !== "number") return fail("nested_offset", "a number");
  await table(".nested_quant_map", DYNAMIC_MAP);
  return {
    codes,
    absmax: await bytes(".absmax", "U8", n / BLOCK),
    nestedAbsmax: await floats(".nested_absmax", Math.ceil(n / BLOCK / NESTED_BLOCK)),
    offset,
  };
}

async function readState(dir: string, checkpoint: Checkpoint, infos: Infos, name: string): Promise<JsonObject> {
  const key = [...infos.keys()].find((other) => other.startsWith(`${name}${STATE}`));
  if (key === undefined) {
    throw new ModelError(dir, `tensor "${name}${STATE}nf4" is missing, which the 4 bits of "${name}" need`);
  }
  if (!key.endsWith("nf4"))
    throw new ModelError(dir, `tensor "${key}": expected ${STATE.slice(1)}nf4 (only NF4 is read)`);
  const text = Buffer.from(await checkpoint.read(infos.get(key)!.name)).toString();
  try {
    return { ...JSON.parse(text) };
  } catch (error) {
    throw new ModelError(dir, `tensor "${key}" holds ${JSON.stringify(text.slice(0, 60))}, expected JSON`, {
      cause: error,
    });
  }
}

/** A matrix in 8 bits: bitsandbytes keeps the absmax of each row, of which a scale is a 127th. */
export async function readInt8(
  dir: string,
  checkpoint: Checkpoint,
  infos: Infos,
  name: string,
  [rows]: readonly number[],
): Promise<Int8> {
  const key = name.replace(/\.weight$/, ".SCB");
  const info = infos.get(key);
  if (info?.dtype !== "F32" || `${info.shape}` !== `${rows}`) {
    const got = info ? `is ${info.dtype} [${info.shape}]` : "is missing";
    throw new ModelError(dir, `tensor "${key}" ${got}, expected F32 [${rows}] for the 8 bits of "${name}"`);
  }
  const bytes = await checkpoint.read(infos.get(name)!.name);
  const absmax = await checkpoint.readFloat32(info.name);
  return {
    codes: new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length),
    scale: absmax.map((most) => most / 127),
  };
}
