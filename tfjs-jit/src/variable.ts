// State that a compiled function updates in place.

import { type Attribute, backend, describe, isBfloat16, native, nativeDtype, type tf } from "./native.js";
import { currentTrace, inner, stringAttribute, symbolOf, tensorOf, typeAttribute, variableState } from "./trace.js";

// TensorFlow's own name for a resource without one: such a resource is freed with its last handle
// (tensorflow/core/framework/resource_handle.h, ResourceHandle::ANONYMOUS_NAME).
const ANONYMOUS = "cd2c89b7-88b7-44c8-ad83-06c2a9158347";

/**
 * A tensor that a jitted function reads and updates without a second copy of it: a TensorFlow resource variable.
 * Inside jit, `read` gives the value as of the last `assign` of the same call; the new value is stored when the call
 * ends. It is captured where a traced function refers to it, or passed as an argument.
 */
export class Variable {
  readonly shape: readonly number[];
  readonly dtype: tf.DataType;
  readonly isBfloat16: boolean;
  /** The binding's id of the resource handle. */
  readonly handle: number;
  #disposed = false;

  /** Takes a copy of `initial`, which stays the caller's. */
  constructor(initial: tf.Tensor) {
    this.shape = [...initial.shape];
    this.dtype = initial.dtype;
    this.isBfloat16 = isBfloat16(initial);
    const attributes = [
      this.#dtypeAttribute(),
      { name: "shape", type: native.TF_ATTR_SHAPE, value: this.shape },
      stringAttribute("container", ""),
      stringAttribute("shared_name", ANONYMOUS),
    ];
    this.handle = native.executeOp("VarHandleOp", attributes, [], 1)[0]!.id;
    this.assign(initial);
  }

  /** The value now. Outside jit the tensor is the caller's to dispose; it does not follow later assignments. */
  read(): tf.Tensor {
    this.#check("read");
    const trace = currentTrace();
    if (trace !== null) return tensorOf(trace, inner(trace, variableState(trace, this).value));
    return backend.createOutputTensor(
      native.executeOp("ReadVariableOp", [this.#dtypeAttribute()], [this.handle], 1)[0]!,
    );
  }

  /**
   * Replaces the value by one of the same shape and dtype. float32 for bfloat16 is an error: who rounds a state at each
   * step loses the small ones, so that is written as toBfloat16 where it is meant.
   */
  assign(value: tf.Tensor): void {
    this.#check("assign");
    if (describe(value) !== describe(this)) {
      const cast = this.isBfloat16 ? "toBfloat16" : "toFloat32";
      const help = value.dtype === this.dtype && isBfloat16(value) !== this.isBfloat16 ? `; cast it with ${cast}` : "";
      throw new TypeError(`Variable.assign: expected ${describe(this)}, got ${describe(value)}${help}`);
    }
    const trace = currentTrace();
    if (trace !== null) {
      if (trace.parent !== null)
        throw new Error(`${trace.what}: a Variable is assigned inside it; return the value, and assign it after`);
      variableState(trace, this).value = symbolOf(trace, value);
      return;
    }
    // A tensor made from a JavaScript array may share its memory, which an update in place would write to: copy.
    const [input] = backend.getInputTensorIds([value]);
    const [copy] = native.executeOp("DeepCopy", [typeAttribute("T", nativeDtype(this))], [input!], 1);
    native.executeOp("AssignVariableOp", [this.#dtypeAttribute()], [this.handle, copy!.id], 0);
    native.deleteTensor(copy!.id);
  }

  /** Frees the value. A compiled function that still needs it says so at its next call. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    native.deleteTensor(this.handle);
  }

  get isDisposed(): boolean {
    return this.#disposed;
  }

  #dtypeAttribute(): Attribute {
    return typeAttribute("dtype", nativeDtype(this));
  }

  #check(what: string): void {
    if (this.#disposed) throw new Error(`Variable.${what}: ${describe(this)} was disposed`);
  }
}
