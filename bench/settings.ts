/** The stages' settings in the benchmarks: those of the peers' scripts, and of examples/demo.yaml. */
import type { DistillSettings } from "../distill/distill.js";
import type { RlSettings } from "../distill/rl.js";
import { MAX_NEW_TOKENS } from "./stages.js";

const training = {
  max_new_tokens: MAX_NEW_TOKENS,
  temperature: 1,
  weight_decay: 0,
  max_grad_norm: 1,
  adam_beta1: 0.9,
  adam_beta2: 0.999,
  adam_epsilon: 1e-8,
  save_every: 1e9,
  trainable: null,
  lora: null,
  gradient_checkpointing: false,
  gradient_accumulation_steps: 1,
};

export const distillSettings = (steps: number, beta: number): DistillSettings => ({
  ...training,
  steps,
  batch_size: 64,
  beta,
  lmbda: 1,
  seq_kd: false,
  loss_temperature: 1,
  loss_top_k: 0,
  loss_add_tail: true,
  learning_rate: "1e-3 * min(1, step / 20) * (1 - (step - 1) / steps)",
});

export const rlSettings = (steps: number): RlSettings => ({
  ...training,
  steps,
  prompts: 32,
  samples: 8,
  beta_kl: 0.02,
  mu: 0.01,
  learning_rate: "1e-4 * min(1, step / 10)",
});
