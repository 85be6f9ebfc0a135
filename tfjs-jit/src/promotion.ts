// Which ops compute in bfloat16, and what happens where bfloat16 meets float32. tfjs knows float32 only, so every op
// arrives with that in its attributes; here they are set to what the inputs are.

import { type Attribute, native } from "./native.js";

/** Ops whose kernels, XLA's too, take bfloat16, and whose sums are exact enough: in float32 inside. */
const COMPUTE_IN_BFLOAT16 = new Set(
  `Abs Add AddN AddV2 ArgMax ArgMin BatchMatMulV2 BroadcastTo Cast Ceil ConcatV2 Cos DeepCopy Div DivNoNan Einsum Elu Equal
   Erf Exp ExpandDims Expm1 Fill Floor GatherNd GatherV2 Greater GreaterEqual Identity IsFinite IsInf IsNan LeakyRelu Less
   LessEqual Log Log1p LogSoftmax MatMul Max Maximum Mean Min Minimum MirrorPad Mul Neg NotEqual OnesLike Pack PadV2 Pow
   RealDiv Reciprocal Relu Relu6 Reshape ReverseV2 Round Rsqrt Select SelectV2 Sigmoid Sign Sin Slice Softmax Softplus
   SplitV Sqrt Square SquaredDifference StridedSlice Sub Sum Tanh TensorStridedSliceUpdate Tile TopKV2 Transpose Unpack
   XlaDynamicSlice XlaDynamicUpdateSlice ZerosLike`.split(/\s+/),
);

/** The attributes that say of what dtype an op's float inputs are. */
const INPUT_DTYPE = new Set(["T", "Tparams", "SrcT"]);

export type Promotion = {
  readonly type: string;
  readonly attributes: readonly Attribute[];
  /** For each input the dtype that it is cast to before; null where it is passed as it is. */
  readonly casts: readonly (number | null)[];
};

/**
 * How an op with a bfloat16 input runs; null where none is. An op computes in bfloat16 if all its float inputs are
 * bfloat16, else in float32, as in JAX. A float32 scalar beside a bfloat16 tensor with dimensions counts as bfloat16:
 * x.mul(2) stays what x is. Ops that have no kernel for bfloat16, or an inexact one, take and give float32.
 */
export function promote(
  type: string,
  attributes: readonly Attribute[],
  inputs: readonly { readonly dtype: number; readonly shape: readonly number[] | null }[],
): Promotion | null {
  const { TF_BFLOAT16, TF_FLOAT } = native;
  if (!inputs.some(({ dtype }) => dtype === TF_BFLOAT16)) return null;
  // For tfjs that is no change, and its gradients do it at every turn: toFloat32 is what converts.
  if (type === "Cast" && attributes.some(({ name, value }) => name === "DstT" && value === TF_FLOAT))
    return {
      type: "Identity",
      attributes: [{ name: "T", type: native.TF_ATTR_TYPE, value: TF_BFLOAT16 }],
      casts: [null],
    };
  const floats = inputs.filter(({ dtype }) => dtype === TF_BFLOAT16 || dtype === TF_FLOAT);
  const wide = floats.filter(({ shape }) => shape?.length !== 0);
  const decide = wide.length > 0 ? wide : floats;
  const isBfloat16 = COMPUTE_IN_BFLOAT16.has(type) && decide.every(({ dtype }) => dtype === TF_BFLOAT16);
  const [from, to] = isBfloat16 ? [TF_FLOAT, TF_BFLOAT16] : [TF_BFLOAT16, TF_FLOAT];
  return {
    type,
    attributes: attributes.map((attribute) =>
      INPUT_DTYPE.has(attribute.name) && attribute.value === from ? { ...attribute, value: to } : attribute,
    ),
    casts: inputs.map(({ dtype }) => (dtype === from ? to : null)),
  };
}
