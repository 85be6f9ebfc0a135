// safetensors-ts: read and write safetensors files, whole, by tensor, in shards.
export * from "./browser.js";
export { type CheckpointLayout, type CheckpointOptions, layOutCheckpoint, type Shard } from "./lay-out-checkpoint.js";
export { type Checkpoint, type CheckpointTensor, INDEX_NAME, openCheckpoint, SINGLE_NAME } from "./open-checkpoint.js";
export { type FileTensor, openSafetensors, type SafetensorsFile } from "./open-file.js";
export { writeCheckpoint } from "./write-checkpoint.js";
export { type StreamedTensor, type WritableTensor, writeSafetensors } from "./write-file.js";
