// Where tfjs meets TensorFlow. Every tfjs kernel ends in backend.binding.executeOp: while a trace is on, the op is
// recorded instead of being run, and one with a bfloat16 input gets the attributes that this needs. With neither, each
// hook is upstream's own function.

import { castAttributes } from "./bfloat16.js";
import { addMatMul } from "./matmul.js";
import {
  type Attribute,
  type Binding,
  backend,
  engine,
  isBfloat16,
  native,
  nativeDtype,
  type TensorMetadata,
  tf,
} from "./native.js";
import { promote } from "./promotion.js";
import { addOp, currentTrace, isOwn, isSymbol, symbolOf, type Trace, tensorOf, typeAttribute } from "./trace.js";

const upstream = {
  getInputTensorIds: backend.getInputTensorIds.bind(backend),
  createOutputTensor: backend.createOutputTensor.bind(backend),
  readSync: backend.readSync.bind(backend),
  move: backend.move.bind(backend),
  startScope: engine.startScope.bind(engine),
  trackTensor: engine.trackTensor.bind(engine),
  disposeTensor: engine.disposeTensor.bind(engine),
};

/** Until the first bfloat16 tensor no op is looked at for one. */
let mayHaveBfloat16 = false;

const executeOp: Binding["executeOp"] = (type, attributes, inputs, outputs) => {
  const trace = currentTrace();
  if (trace !== null) return recordOp(trace, type, attributes, inputs);
  const nodes = mayHaveBfloat16 ? inputs.map((id) => native.tensorNode(id)) : [];
  const promotion = promote(type, attributes, nodes);
  if (promotion === null) return native.executeOp(type, attributes, inputs, outputs);
  const made: number[] = [];
  const ids = inputs.map((id, i) => {
    const to = promotion.casts[i] ?? null;
    if (to === null) return id;
    const [cast] = native.executeOp("Cast", castAttributes(nodes[i]!.dtype, to), [id], 1);
    made.push(cast!.id);
    return cast!.id;
  });
  try {
    return native.executeOp(promotion.type, promotion.attributes, ids, outputs);
  } finally {
    for (const id of made) native.deleteTensor(id);
  }
};

function recordOp(
  trace: Trace,
  type: string,
  attributes: readonly Attribute[],
  inputs: readonly number[],
): TensorMetadata[] {
  for (const { from } of trace.captures)
    if (typeof from !== "number" && from.kind === "tensor" && from.op === "") from.op = type;
  const nodes = inputs.map((id) => trace.symbols.get(id)!.node);
  const metadata = (id: number): TensorMetadata => {
    const { dtype, shape } = trace.symbols.get(id)!.node;
    return { id, dtype, shape: shape! };
  };
  const product = type === "BatchMatMulV2" ? addMatMul(trace, attributes, inputs) : null;
  if (product !== null) return [metadata(product)];
  const promotion = promote(type, attributes, nodes) ?? { type, attributes, casts: [] };
  const ids = inputs.map((id, i) => {
    const to = promotion.casts[i] ?? null;
    return to === null ? id : addOp(trace, "Cast", castAttributes(nodes[i]!.dtype, to), [id])[0]!;
  });
  // An op with the attribute N takes its first N inputs as one list.
  const count = promotion.attributes.find(({ name }) => name === "N")?.value as number | undefined;
  const grouped = count === undefined ? ids : [ids.slice(0, count), ...ids.slice(count)];
  const own = promotion.attributes.filter(({ name }) => name !== "N");
  return addOp(trace, promotion.type, own, grouped).map(metadata);
}

backend.binding = Object.create(native, { executeOp: { value: executeOp } });

backend.getInputTensorIds = (tensors) => {
  const trace = currentTrace();
  if (trace !== null) return tensors.map((tensor) => symbolOf(trace, tensor));
  const ids = upstream.getInputTensorIds(tensors);
  if (ids.some(isSymbol))
    throw new Error("a traced tensor is used after its trace ended; return it from the compiled function instead");
  return ids;
};

backend.createOutputTensor = (metadata) => {
  if (metadata.dtype !== native.TF_BFLOAT16) return upstream.createOutputTensor(metadata);
  mayHaveBfloat16 = true;
  const dataId = {};
  backend.tensorMap.set(dataId, { ...metadata, values: null, refCount: 1 });
  return engine.makeTensorFromTensorInfo({ dataId, shape: metadata.shape, dtype: "float32" });
};

backend.readSync = (dataId) => {
  const data = backend.tensorMap.get(dataId);
  if (data === undefined) return upstream.readSync(dataId);
  if (isSymbol(data.id)) throw new Error(readWhileTraced(data.id));
  if (data.dtype !== native.TF_BFLOAT16) return upstream.readSync(dataId);
  const [cast] = native.executeOp("Cast", castAttributes(native.TF_BFLOAT16, native.TF_FLOAT), [data.id], 1);
  const values = native.tensorDataSync(cast!.id);
  native.deleteTensor(cast!.id);
  return values;
};

function readWhileTraced(id: number): string {
  const trace = currentTrace();
  let about = "a finished trace";
  for (let t = trace; t !== null; t = t.parent) about = t.symbols.get(id)?.about ?? about;
  return (
    `${trace?.what ?? "jit"}: the output of op ${about} is read while it is being traced, and has no value yet; ` +
    "return it and read it outside, or decide with cond or whileLoop"
  );
}

backend.move = (dataId, ...rest) => {
  currentTrace()?.written.add(dataId);
  upstream.move(dataId, ...rest);
};

// A clone shares the data of its tensor, so nobody would know which tensor from outside a loop it stands for: the clone of
// such a one is an op as any other.
const identity = tf.getKernel("Identity", "tensorflow");
tf.unregisterKernel("Identity", "tensorflow");
tf.registerKernel({
  ...identity,
  kernelFunc: (args) => {
    const { x } = args.inputs as { x: tf.Tensor };
    const trace = currentTrace();
    if (trace === null || isOwn(trace, x)) return identity.kernelFunc(args);
    const type = typeAttribute("T", nativeDtype(x));
    return tensorOf(trace, addOp(trace, "Identity", [type], [symbolOf(trace, x)])[0]!);
  },
});

// tf.memory counts 4 bytes an element, as of float32.
const bytesTooMany = (tensor: tf.Tensor) => (mayHaveBfloat16 && isBfloat16(tensor) ? 2 * tensor.size : 0);

engine.trackTensor = (tensor, ofBackend) => {
  upstream.trackTensor(tensor, ofBackend);
  engine.state.numBytes -= bytesTooMany(tensor);
};

engine.disposeTensor = (tensor) => {
  engine.state.numBytes += bytesTooMany(tensor);
  upstream.disposeTensor(tensor);
};

/** tfjs draws these in JavaScript or from a stateful op: inside a trace they would be drawn once and frozen. */
const RANDOM = new Set(
  [
    "rand",
    "randomNormal",
    "randomStandardNormal",
    "randomUniform",
    "randomUniformInt",
    "randomGamma",
    "truncatedNormal",
    "multinomial",
    "dropout",
  ].map((name) => `${name}__op`),
);

engine.startScope = (name) => {
  const trace = currentTrace();
  if (trace !== null && name !== undefined && RANDOM.has(name))
    throw new Error(
      `${trace.what}: tf.${name.replace("__op", "")} would be drawn once, while tracing, and stay the same at every call; ` +
        "use randomUniform(seed, counter, shape) of tfjs-jit",
    );
  upstream.startScope(name);
};
