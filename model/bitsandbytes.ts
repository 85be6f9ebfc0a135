/**
 * Matrices as bitsandbytes stores them in safetensors, by way of transformers: in 4 bits `X.weight` holds codes, and
 * `X.weight.absmax`, `.quant_map` and `.quant_state.bitsandbytes__nf4` (JSON in bytes) stand beside it, with double
 * quantisation also `.nested_absmax` and `.nested_quant_map`; in 8 bits `X.SCB` has the absmax of each row.
 * Imports no TensorFlow.
 */
import { type SafetensorsFile, type TensorInfo, toFloat32 } from "safetensors-ts";
import { ModelError } from "./errors.js";
import type { JsonObject } from "./json.js";
import { BLOCK, DYNAMIC_MAP, type Int8, NESTED_BLOCK, NF4, type Nf4, type Nf4Blocks } from "./quantise.js";

type Checkpoint = Pick<SafetensorsFile, "read">;
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
  const floats = async (end: string, length: number) => finite(dir, checkpoint, part(end, "F32", length));
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

async function finite(dir: string, checkpoint: Checkpoint, name: string): Promise<Float32Array> {
  const values = toFloat32(await checkpoint.read(name), "F32");
  const wrong = values.find((value) => !Number.isFinite(value));
  if (wrong === undefined) return values;
  throw new ModelError(dir, `tensor "${name}" holds ${wrong}, expected finite numbers`);
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

/** What `weight_format` is where codes stand row after row; older versions have orders of single kinds of GPUs, too. */
const ROW_BY_ROW = 0;

/** A matrix in 8 bits: bitsandbytes keeps the absmax of each row, of which a scale is a 127th. */
export async function readInt8(
  dir: string,
  checkpoint: Checkpoint,
  infos: Infos,
  name: string,
  shape: readonly number[],
): Promise<Int8> {
  const codes = infos.get(name)!;
  const [rows] = shape;
  const key = name.replace(/\.weight$/, ".SCB");
  const info = infos.get(key);
  if (info?.dtype !== "F32" || `${info.shape}` !== `${rows}`) {
    const got = info ? `is ${info.dtype} [${info.shape}]` : "is missing";
    throw new ModelError(dir, `tensor "${key}" ${got}, expected F32 [${rows}] for the 8 bits of "${name}"`);
  }
  if (`${codes.shape}` !== `${shape}`) {
    throw new ModelError(dir, `tensor "${codes.name}" has shape [${codes.shape}], expected [${shape}] by config.json`);
  }
  const format = infos.get(name.replace(/\.weight$/, ".weight_format"));
  const order = format === undefined ? ROW_BY_ROW : (await checkpoint.read(format.name))[0];
  if (order !== ROW_BY_ROW) {
    throw new ModelError(dir, `tensor "${format?.name}" is ${order}, expected ${ROW_BY_ROW}: codes row after row`);
  }
  const bytes = await checkpoint.read(codes.name);
  const absmax = await finite(dir, checkpoint, info.name);
  return {
    codes: new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length),
    scale: absmax.map((most) => most / 127),
  };
}
