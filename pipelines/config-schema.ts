/**
 * The keys of a config file, with their meaning, unit, range and default: here and nowhere else.
 * One schema serves every command; each error message is what was expected, in words (config.ts adds the rest).
 */
import { z } from "zod";
import { COMPUTE_DTYPES } from "../model/compute.js";

/** min <= value <= max and above < value < below, each where given. */
export type Range = { min?: number; max?: number; above?: number; below?: number };

/** Fields that take an expression too, with their range and what the expression may refer to. */
export const scheduleFields = z.registry<{ range: Range; variables: readonly string[] }>();

const overSteps = ["step", "steps", "iteration"] as const;
const overLayers = ["iteration", "layer", "layers"] as const;

/** A range in words, for messages. */
export function rangeText({ min, max, above, below }: Range): string {
  if (min !== undefined && max !== undefined) return `a number from ${min} to ${max}`;
  const low = above === undefined ? `of at least ${min}` : `above ${above}`;
  return `a number ${low}${below === undefined ? "" : ` and below ${below}`}`;
}

export function inRange(value: number, { min, max, above, below }: Range): boolean {
  const low = value >= (min ?? -Infinity) && value > (above ?? -Infinity);
  return low && value <= (max ?? Infinity) && value < (below ?? Infinity);
}

/** A number, or an expression of the variables named (distill/schedule.ts), evaluated at every step or layer. */
function schedule(range: Range, preset: number, variables: readonly string[] = overSteps) {
  const expected = `${rangeText(range)}, or an expression of ${variables.join(", ")}`;
  const number = z.number().refine((value) => inRange(value, range), expected);
  return z
    .union([number, z.string().regex(/\S/, expected)], expected)
    .default(preset)
    .register(scheduleFields, { range, variables });
}

function number(range: Range) {
  return z.number(rangeText(range)).refine((value) => inRange(value, range), rangeText(range));
}

function whole(min: number) {
  const expected = `a whole number of at least ${min}`;
  return z.int(expected).min(min, expected);
}

function text(expected: string) {
  return z.string(expected).regex(/\S/, expected);
}

function choice<const T extends readonly string[]>(...choices: T) {
  return z.enum(choices, `one of ${choices.join(", ")}`);
}

/** Regular expressions, or null for all. */
function patterns() {
  const expected = "a list of regular expressions for the names of tensors, or null for all of them";
  return z.array(text(expected).refine(isRegularExpression, expected), expected).min(1, expected).nullable();
}

function isRegularExpression(source: string): boolean {
  try {
    return new RegExp(source) instanceof RegExp;
  } catch {
    return false;
  }
}

const flag = () => z.boolean("true or false");

/** A LoRA that learns in place of the model's weights (arXiv 2106.09685). Names are those of PEFT's LoraConfig, presets too. */
export const lora = z.strictObject(
  {
    /** Rank. */
    r: whole(1).default(8),
    /** What is added is multiplied by lora_alpha / r. */
    lora_alpha: number({ above: 0 }).default(8),
    /** Share of each adapter's inputs that a training step leaves out. */
    lora_dropout: number({ min: 0, below: 1 }).default(0),
    /** What has an adapter: all projections of the layers, or those whose names end so, such as q_proj. */
    target_modules: z
      .union(
        [z.literal("all-linear"), z.array(text("a module's name")).min(1)],
        "all-linear, or a list of names of modules, such as q_proj",
      )
      .default("all-linear"),
    /** lora_alpha / sqrt(r) in place of lora_alpha / r (arXiv 2312.03732). */
    use_rslora: flag().default(false),
    /** Modules beside the projections that learn whole, and are stored whole, such as embed_tokens. */
    modules_to_save: z.array(text("a module's name"), "a list of names of modules, such as embed_tokens").default([]),
  },
  "a section of keys, or null",
);

/** What the stages that train have in common. The presets not explained are those of torch.optim.AdamW. */
const training = (learningRate: number) => ({
  /** Optimiser steps. */
  steps: whole(1),
  /** Step size of AdamW, before its scaling. Warm-up and decay are an expression: "1e-5 * min(1, step / 100)". */
  learning_rate: schedule({ min: 0 }, learningRate),
  /** Decoupled weight decay of AdamW, relative to the learning rate; 0 is plain Adam. */
  weight_decay: schedule({ min: 0 }, 0),
  /** Decay of AdamW's mean of gradients, a step. */
  adam_beta1: number({ min: 0, below: 1 }).default(0.9),
  /** Decay of AdamW's mean of squared gradients, a step. */
  adam_beta2: number({ above: 0, below: 1 }).default(0.999),
  /** Added to AdamW's denominator. */
  adam_epsilon: number({ above: 0 }).default(1e-8),
  /** Gradients are scaled down to this global L2 norm. */
  max_grad_norm: schedule({ above: 0 }, 1),
  /** Steps from one training checkpoint to the next: what a killed run loses at most. */
  save_every: whole(1).default(100),
  /** A step's batch is computed in so many parts, one after the other: less memory, the same loss and gradient. */
  gradient_accumulation_steps: whole(1).default(1),
  /** As at the top level, whose values these have where they are absent. */
  max_new_tokens: whole(1).optional(),
  trainable: patterns().optional(),
  lora: lora.nullable().optional(),
  gradient_checkpointing: flag().optional(),
});

type Parts = { readonly gradient_accumulation_steps: number };

/** Whether a step's rows split into parts of one size. */
function splits<K extends string>(rows: K): [(section: Record<K, number> & Parts) => boolean, object] {
  const check = (section: Record<K, number> & Parts) => section[rows] % section.gradient_accumulation_steps === 0;
  return [check, { path: ["gradient_accumulation_steps"], message: `a divisor of ${rows}` }];
}

/** Supervised fine-tuning on the completions in the data. */
const sft = z
  .strictObject(
    {
      ...training(2e-5),
      /** Rows a step. */
      batch_size: whole(1).default(8),
    },
    "a section of keys",
  )
  .refine(...splits("batch_size"));

/** Distillation. Names and presets are those of TRL's GKDConfig, except lmbda: here it is on policy unless told otherwise. */
const distill = z
  .strictObject(
    {
      ...training(2e-5),
      /** Prompts a step, one completion each. */
      batch_size: whole(1).default(8),
      /** 0 is forward KL(teacher || student), 1 reverse KL(student || teacher), between them the generalised JSD. */
      beta: schedule({ min: 0, max: 1 }, 0.5),
      /** Share of the optimiser steps that learn from the student's own samples. */
      lmbda: schedule({ min: 0, max: 1 }, 1),
      /** The other steps learn from samples of the teacher (true) or from the completions in the data (false). */
      seq_kd: flag().default(false),
      /** Of sampling; 0 takes the likeliest token. */
      temperature: schedule({ min: 0 }, 1),
      /** Divides both models' logits in the loss. */
      loss_temperature: schedule({ above: 0 }, 1),
      /** The loss looks at the teacher's k likeliest tokens; 0 is the whole vocabulary, which over HTTP is much to send. */
      loss_top_k: whole(0).default(0),
      /** With loss_top_k: a class for the rest of the mass (true), or both sides renormalised on the k tokens (false). */
      loss_add_tail: flag().default(true),
    },
    "a section of keys",
  )
  .refine(...splits("batch_size"));

/** What rewards completions in place of answers, as in TRL: a model for sequence classification with one label. */
export const rewardModel = z.strictObject(
  {
    /** Its folder, or its name on the hub. It has a tokenizer and a chat template of its own. */
    model: text("a folder with config.json"),
    /** What it is kept and computed in. */
    dtype: choice(...COMPUTE_DTYPES).default("float32"),
  },
  "a section of keys",
);

/** Reinforcement learning against a moving anchor: REINFORCE with a leave-one-out baseline, as in WARP (arXiv 2406.16768). */
const rl = z
  .strictObject(
    {
      ...training(1e-6),
      /** Prompts a step. */
      prompts: whole(1).default(8),
      /** Completions a prompt; the others of its prompt are each one's baseline. */
      samples: whole(2).default(2),
      /** exact_match: 1 where the completion equals the row's `answer`, both trimmed, else 0; or the score of a reward model. */
      reward: z
        .union([z.literal("exact_match"), rewardModel], "exact_match, or a section with model: a reward model's folder")
        .default("exact_match"),
      /** Price of one nat of log pi(y|x) - log pi_ema(y|x), in units of the reward. */
      beta_kl: schedule({ min: 0 }, 0.1),
      /** Pull of the anchor toward the policy, a step: ema <- (1 - mu) ema + mu policy. 0 keeps the anchor at the init. */
      mu: schedule({ min: 0, max: 1 }, 0.01),
      /** Of sampling. */
      temperature: schedule({ above: 0 }, 1),
    },
    "a section of keys",
  )
  .refine(...splits("prompts"));

/** How the RL runs are merged, and how often all of it is repeated (arXiv 2406.16768). */
const warp = z.strictObject(
  {
    /** Rounds of RL runs, SLERP and LITI; each starts from the result of the one before. */
    iterations: whole(1).default(1),
    /** RL runs an iteration (M in the paper). */
    runs: whole(1).default(2),
    /** LITI: the result is init + eta (slerp - init). */
    eta: schedule({ min: 0, max: 1 }, 0.3, overLayers),
    /** What shares one angle in SLERP. */
    granularity: choice("tensor", "layer", "model").default("layer"),
  },
  "a section of keys",
);

/** How models are measured on eval_data, before, between and after the stages. */
const evaluation = z.strictObject(
  {
    /** Completions a prompt for the sampled reward, at temperature 1. */
    samples: whole(1).default(1),
    /** Completions at a time. */
    batch_size: whole(1).default(32),
    /** The first so many rows of eval_data; null is all. */
    limit: whole(1).nullable().default(null),
    /** As in the stages that train. */
    max_new_tokens: whole(1).optional(),
  },
  "a section of keys",
);

export const sections = { sft, distill, rl, warp, eval: evaluation };

export const fields = z.strictObject(
  {
    /** The model to train: a folder, or org/name[@revision] of the hub, of which a run keeps the commit that it began with. An adapter's folder is its base with the adapter merged in; what learns is then all of that, or with lora a new adapter on it, and the result is a whole model. */
    model: text("a folder with config.json"),
    /** Folder (a model's or an adapter's) or name on the hub of the teacher, or http(s) address of a server that scores (`heddle serve`, vLLM). */
    teacher: text("a model folder or an http(s) URL").nullable().default(null),
    /** JSONL file of prompts. */
    train_data: text("a JSONL file"),
    /** JSONL file of held-out prompts. */
    eval_data: text("a JSONL file").nullable().default(null),
    /** Folder of the run; runs/NAME for NAME.yaml where absent. */
    output_dir: text("a folder to write"),
    /** Everything random follows from it. */
    seed: whole(0).default(0),
    /** A system message in the data is put before the first user message (fold), left out (drop), or rendered by a chat template that knows the role and else an error. */
    system: choice("error", "fold", "drop").default("error"),
    /** What messages spell like a control token, such as <end_of_turn>, is one; otherwise it is text, and ends no turn. */
    allow_control_tokens: flag().default(false),
    /** Longest completion in tokens, stop token included. Sections may have their own. */
    max_new_tokens: whole(1).default(128),
    /** What learns: tensors whose name matches one of these regular expressions, such as "layers\\.2[45]\\."; null is all. */
    trainable: patterns().default(null),
    /** An adapter that learns in place of the model's weights; null is none. The result of a stage is then a PEFT adapter; with a section warp it is part of the weights. */
    lora: lora.nullable().default(null),
    /** The layers' matrices that do not learn are kept in NF4, the embedding in int8 (docs/quantisation.md): with lora, or with trainable. */
    load_in_4bit: flag().default(false),
    /** The same with int8. */
    load_in_8bit: flag().default(false),
    /** What matrix products of the model to train are computed in; weights that learn, norms and losses are float32. */
    compute_dtype: choice(...COMPUTE_DTYPES).default("float32"),
    /** What a teacher that is a model folder is kept and computed in. */
    teacher_dtype: choice(...COMPUTE_DTYPES).default("float32"),
    /** Of the layers only what each begins with is kept for the gradient, the rest is computed again: less memory, more time. So it is also where frozen layers stay in the checkpoint's bfloat16. */
    gradient_checkpointing: flag().default(false),
    sft: sft.optional(),
    distill: distill.optional(),
    rl: rl.optional(),
    warp: warp.optional(),
    eval: evaluation.prefault({}),
  },
  "a mapping of keys",
);

/** Fills in what the sections have from the top level. */
export const configSchema = fields.transform(({ sft, distill, rl, ...config }) => {
  const { max_new_tokens, trainable, lora, gradient_checkpointing } = config;
  const inherited = { max_new_tokens, trainable, lora, gradient_checkpointing };
  const stage = <S extends object>(section: S) => ({ ...inherited, ...section });
  return {
    ...config,
    ...(sft && { sft: stage(sft) }),
    ...(distill && { distill: stage(distill) }),
    ...(rl && { rl: stage(rl) }),
    eval: { max_new_tokens, ...config.eval },
  };
});
