// safetensors-ts: read and write safetensors files, whole, by tensor, in shards.
export * from "./browser.js";
export { type Checkpoint, type CheckpointTensor, openCheckpoint } from "./open-checkpoint.js";
export { openSafetensors, type SafetensorsFile } from "./open-file.js";
export { type WriteCheckpointOptions, writeCheckpoint } from "./write-checkpoint.js";
export { type StreamedTensor, type WritableTensor, writeSafetensors } from "./write-file.js";
