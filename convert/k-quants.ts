// ggml's k-quants: super-blocks of 256 weights, whose smaller blocks have quantised scales. Layouts: ggml-common.h
// (block_q4_K and so on), meaning: dequantize_row_* of ggml-quants.c.
import { float16At } from "./float16.js";
import type { Dequantize } from "./legacy-quants.js";

export const SUPER_BLOCK = 256;
/** Weights that share a scale and a minimum in Q4_K and Q5_K. */
const BLOCK = 32;

/** float16 scale and minimum, 12 bytes of 8 block scales and minima, 128 bytes of nibbles. */
export const dequantizeQ4_K: Dequantize = (bytes, into) => {
  for (let at = 0, to = 0; at < bytes.length; at += 144, to += SUPER_BLOCK) {
    for (let block = 0; block < SUPER_BLOCK / BLOCK; block++) {
      const { scale, minimum } = blockScale(bytes, at, block);
      // Two blocks share 32 bytes: the first has the low halves.
      const [from, shift] = [at + 16 + (block >> 1) * BLOCK, (block & 1) * 4];
      for (let i = 0; i < BLOCK; i++) {
        into[to + block * BLOCK + i] = scale * ((bytes[from + i]! >> shift) & 15) - minimum;
      }
    }
  }
};

/** As Q4_K, with 32 bytes of fifth bits before the nibbles: bit b of byte i is that of weight i of block b. */
export const dequantizeQ5_K: Dequantize = (bytes, into) => {
  for (let at = 0, to = 0; at < bytes.length; at += 176, to += SUPER_BLOCK) {
    for (let block = 0; block < SUPER_BLOCK / BLOCK; block++) {
      const { scale, minimum } = blockScale(bytes, at, block);
      const [from, shift] = [at + 48 + (block >> 1) * BLOCK, (block & 1) * 4];
      for (let i = 0; i < BLOCK; i++) {
        const fifth = (bytes[at + 16 + i]! >> block) & 1;
        into[to + block * BLOCK + i] = scale * (((bytes[from + i]! >> shift) & 15) | (fifth << 4)) - minimum;
      }
    }
  }
};

/**
 * Scale and minimum of a block. Of the 12 bytes that hold 8 scales and 8 minima of 6 bits, the first four end with the
 * first four scales and the next four with the first four minima; the last four hold the lower four bits of the others,
 * whose upper two bits are at the top of the first eight.
 */
function blockScale(bytes: Uint8Array, at: number, block: number): { scale: number; minimum: number } {
  const packed = at + 4;
  const [low, high] = [bytes[packed + (block & 3)]!, bytes[packed + 4 + (block & 3)]!];
  const last = bytes[packed + 8 + (block & 3)]!;
  const isLate = block > 3;
  const scale = isLate ? (last & 15) | ((low >> 6) << 4) : low & 63;
  const minimum = isLate ? (last >> 4) | ((high >> 6) << 4) : high & 63;
  return { scale: float16At(bytes, at) * scale, minimum: float16At(bytes, at + 2) * minimum };
}

/**
 * 128 bytes of lower four bits, 64 bytes of upper two bits, 16 signed block scales (of 16 weights), a float16 scale:
 * scale block_scale (q - 32). Half a super-block is four runs of 32 weights: runs 0 and 2 are the low and high halves of
 * the first 32 bytes, 1 and 3 of the next; their upper bits are the bit pairs, from the lowest up, of 32 bytes.
 */
export const dequantizeQ6_K: Dequantize = (bytes, into) => {
  for (let at = 0, to = 0; at < bytes.length; at += 210, to += SUPER_BLOCK) {
    const scale = float16At(bytes, at + 208);
    for (let run = 0; run < 8; run++) {
      const [half, inHalf] = [run >> 2, run & 3];
      const lower = at + half * 64 + (inHalf & 1) * 32;
      const upper = at + 128 + half * 32;
      const [lowerShift, upperShift] = [(inHalf >> 1) * 4, inHalf * 2];
      for (let i = 0; i < 32; i++) {
        const q = ((bytes[lower + i]! >> lowerShift) & 15) | (((bytes[upper + i]! >> upperShift) & 3) << 4);
        const blockScale = (bytes[at + 192 + run * 2 + (i >> 4)]! << 24) >> 24;
        into[to + run * 32 + i] = scale * blockScale * (q - 32);
      }
    }
  }
};
