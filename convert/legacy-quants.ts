// ggml's first quantised formats: blocks of 32 weights with one scale each. Layouts: ggml-common.h (block_q4_0 and so on),
// meaning: dequantize_row_* of ggml-quants.c. Scales are float16; the low halves of the bytes are the first 16 weights.
import { float16At } from "./float16.js";

/** Weights of whole blocks of `bytes`, into as many elements. */
export type Dequantize = (bytes: Uint8Array, into: Float32Array) => void;

export const LEGACY_BLOCK = 32;
const HALF = LEGACY_BLOCK / 2;

/** scale, 32 signed bytes: scale q. */
export const dequantizeQ8_0: Dequantize = (bytes, into) => {
  for (let at = 0, to = 0; at < bytes.length; at += 34, to += LEGACY_BLOCK) {
    const scale = float16At(bytes, at);
    for (let i = 0; i < LEGACY_BLOCK; i++) into[to + i] = scale * ((bytes[at + 2 + i]! << 24) >> 24);
  }
};

/** scale, 16 bytes of nibbles: scale (q - 8). */
export const dequantizeQ4_0: Dequantize = (bytes, into) => {
  for (let at = 0, to = 0; at < bytes.length; at += 18, to += LEGACY_BLOCK) {
    const scale = float16At(bytes, at);
    for (let i = 0; i < HALF; i++) {
      const pair = bytes[at + 2 + i]!;
      into[to + i] = scale * ((pair & 15) - 8);
      into[to + HALF + i] = scale * ((pair >> 4) - 8);
    }
  }
};

/** scale, minimum, 16 bytes of nibbles: scale q + minimum. */
export const dequantizeQ4_1: Dequantize = (bytes, into) => {
  for (let at = 0, to = 0; at < bytes.length; at += 20, to += LEGACY_BLOCK) {
    const [scale, minimum] = [float16At(bytes, at), float16At(bytes, at + 2)];
    for (let i = 0; i < HALF; i++) {
      const pair = bytes[at + 4 + i]!;
      into[to + i] = scale * (pair & 15) + minimum;
      into[to + HALF + i] = scale * (pair >> 4) + minimum;
    }
  }
};

/** scale, 32 fifth bits, 16 bytes of nibbles: scale (q - 16). */
export const dequantizeQ5_0: Dequantize = (bytes, into) => {
  for (let at = 0, to = 0; at < bytes.length; at += 22, to += LEGACY_BLOCK) {
    const scale = float16At(bytes, at);
    const fifths = uint32At(bytes, at + 2);
    for (let i = 0; i < HALF; i++) {
      const pair = bytes[at + 6 + i]!;
      into[to + i] = scale * (((pair & 15) | (((fifths >>> i) & 1) << 4)) - 16);
      into[to + HALF + i] = scale * (((pair >> 4) | (((fifths >>> (HALF + i)) & 1) << 4)) - 16);
    }
  }
};

/** scale, minimum, 32 fifth bits, 16 bytes of nibbles: scale q + minimum. */
export const dequantizeQ5_1: Dequantize = (bytes, into) => {
  for (let at = 0, to = 0; at < bytes.length; at += 24, to += LEGACY_BLOCK) {
    const [scale, minimum] = [float16At(bytes, at), float16At(bytes, at + 2)];
    const fifths = uint32At(bytes, at + 4);
    for (let i = 0; i < HALF; i++) {
      const pair = bytes[at + 8 + i]!;
      into[to + i] = scale * ((pair & 15) | (((fifths >>> i) & 1) << 4)) + minimum;
      into[to + HALF + i] = scale * ((pair >> 4) | (((fifths >>> (HALF + i)) & 1) << 4)) + minimum;
    }
  }
};

const uint32At = (bytes: Uint8Array, at: number): number =>
  bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
