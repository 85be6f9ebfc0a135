/** The settings of a stage at one step: numbers as in the config, schedules evaluated, and the scalars of the optimiser. */
import { tf } from "tfjs-jit";
import { compileSchedule, type Schedule, type ScheduleVariables } from "../config/schedule.js";
import type { AdamWSettings, Optimiser } from "../student/optimiser.js";
import type { TrainableOptions } from "../student/trainable.js";
import { TrainingError } from "./errors.js";

/** A number, or an expression of step, steps and iteration. */
export type ScheduleValue = number | string;

/** Keys that every stage that trains has, as in the config. */
export type TrainingSettings = AdamWSettings &
  Required<TrainableOptions> & {
    readonly steps: number;
    readonly save_every: number;
    readonly max_new_tokens: number;
    readonly learning_rate: ScheduleValue;
    readonly weight_decay: ScheduleValue;
    readonly max_grad_norm: ScheduleValue;
  };

/** The settings that change over the steps, by name: a function from a step to their values. */
export async function compileSchedules<K extends string>(
  settings: Readonly<Record<K, ScheduleValue>>,
  names: readonly K[],
): Promise<(variables: ScheduleVariables) => Record<K, number>> {
  const schedules: [K, Schedule][] = [];
  for (const name of names) schedules.push([name, await compileSchedule(settings[name])]);
  return (variables) => Object.fromEntries(schedules.map(([name, at]) => [name, at(variables)])) as Record<K, number>;
}

/** The optimiser at one step. The caller disposes the tensors. */
export function optimiserAt(
  { adam_beta1, adam_beta2, adam_epsilon }: AdamWSettings,
  step: number,
  now: Readonly<Record<"learning_rate" | "weight_decay" | "max_grad_norm", number>>,
): Optimiser {
  return {
    adamw: { adam_beta1, adam_beta2, adam_epsilon },
    scalars: {
      step: tf.scalar(step),
      learningRate: tf.scalar(now.learning_rate),
      weightDecay: tf.scalar(now.weight_decay),
      maxGradNorm: tf.scalar(now.max_grad_norm),
    },
  };
}

/** @throws TrainingError where a step's rows cannot be split into parts of one size */
export const rowsOfPart = (rows: number, { gradient_accumulation_steps: parts }: TrainingSettings): number => {
  if (rows % parts !== 0)
    throw new TrainingError(
      `gradient_accumulation_steps: expected a divisor of the ${rows} rows of a step, got ${parts}`,
    );
  return rows / parts;
};
