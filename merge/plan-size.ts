// What a plan amounts to, before anything is read: counts and bytes.
import { byteLength, layOutCheckpoint } from "safetensors-ts";
import { METHODS } from "./methods.js";
import type { OutputTensor, Plan, Source, TensorPlace } from "./plan.js";

export interface PlanSize {
  readonly tensors: number;
  /** Elements of all tensors of the result. */
  readonly parameters: number;
  /** Bytes of all sources. What one tensor is made of counts once; a layer that is stacked twice counts twice. */
  readonly bytesRead: number;
  /** How often sources are read at most: once for each pass of their merges, and once to be written. */
  readonly readings: number;
  /** Bytes of the result's tensors, without headers. */
  readonly bytesWritten: number;
  readonly shards: readonly ShardSize[];
}

export interface ShardSize {
  readonly name: string;
  readonly tensors: number;
  /** Bytes of the file, its header among them. */
  readonly bytes: number;
}

/** @param shardSize most bytes of tensors in a file */
export function sizeOf({ tensors }: Plan, shardSize: number): PlanSize {
  const { shards } = layOutCheckpoint(tensors, { shardSize });
  return {
    tensors: tensors.length,
    parameters: total(tensors, ({ shape }) => shape.reduce((a, b) => a * b, 1)),
    bytesRead: total(tensors, bytesReadFor),
    readings: Math.max(...tensors.map(({ source }) => readingsOf(source))),
    bytesWritten: total(tensors, byteLength),
    shards: shards.map(({ name, bytes, tensors }) => ({ name, tensors: tensors.length, bytes })),
  };
}

const total = <T>(items: readonly T[], bytes: (item: T) => number): number =>
  items.reduce((sum, item) => sum + bytes(item), 0);

function bytesReadFor({ source, sameAs = [] }: OutputTensor): number {
  const places = new Map([...placesOf(source), ...sameAs].map((place) => [`${place.file} ${place.position}`, place]));
  return total([...places.values()], (place) => byteLength({ name: "", ...place }));
}

function placesOf(source: Source): readonly TensorPlace[] {
  switch (source.kind) {
    case "tensor":
      return [source.place];
    case "rows":
      return source.places;
    case "lora":
      return [...placesOf(source.of), source.a, source.b];
    case "merge":
      return inputsOf(source).flatMap(placesOf);
  }
}

function readingsOf(source: Source): number {
  if (source.kind === "lora") return readingsOf(source.of);
  if (source.kind !== "merge") return 1;
  return METHODS[source.method].passes.length + Math.max(...inputsOf(source).map(readingsOf));
}

const inputsOf = ({ base, models }: Extract<Source, { kind: "merge" }>): readonly Source[] =>
  base ? [base, ...models] : models;
