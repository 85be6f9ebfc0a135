/** The shapes that the benchmarks share with the peers' scripts, with random weights. */
import { tf, toBfloat16 } from "tfjs-jit";
import { type ModelConfig, parseModelConfig } from "../model/config.js";
import { createParameters, type Parameters } from "../model/parameters.js";
import { parameterShapes } from "../model/shapes.js";

/** 4 layers of width 256. */
export const studentConfig = (vocabSize: number, layers = 4): ModelConfig => configOf(vocabSize, { layers, heads: 4 });

/** 6 layers of width 512. */
export const teacherConfig = (vocabSize: number): ModelConfig => configOf(vocabSize, { layers: 6, heads: 8 });

function configOf(vocabSize: number, { layers, heads }: { layers: number; heads: number }): ModelConfig {
  return parseModelConfig("the benchmark's config", {
    model_type: "gemma2",
    vocab_size: vocabSize,
    hidden_size: heads * 64,
    intermediate_size: heads * 256,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: heads / 2,
    head_dim: 64,
    query_pre_attn_scalar: 64,
    max_position_embeddings: 1024,
    sliding_window: 4096,
    pad_token_id: 0,
    eos_token_id: 1,
    bos_token_id: 2,
  });
}

/** Normal with standard deviation 0.02, norms zero, as transformers initialises them; in the dtype that the model is computed in. */
export const randomParameters = (config: ModelConfig): Parameters =>
  createParameters(
    Object.fromEntries(
      Object.entries(parameterShapes(config)).map(([name, shape], i) => {
        const weight = shape.length === 1 ? tf.zeros(shape) : tf.randomNormal(shape, 0, 0.02, "float32", i);
        return [name, config.compute.dtype === "bfloat16" ? toBfloat16(weight) : weight];
      }),
    ),
  );

/** n token ids that are no control tokens. */
export const randomIds = (n: number, vocabSize: number): number[] => [
  ...tf.randomUniform([n], 3, vocabSize, "int32", n).dataSync(),
];
