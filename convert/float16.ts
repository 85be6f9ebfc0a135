// The scales of quantised blocks.
import { toFloat32 } from "safetensors-ts";

/** float32 of every float16, by its bits. */
const VALUES = toFloat32(new Uint8Array(Uint16Array.from({ length: 2 ** 16 }, (_, bits) => bits).buffer), "F16");

/** The little-endian float16 at byte `at`. */
export const float16At = (bytes: Uint8Array, at: number): number => VALUES[bytes[at]! | (bytes[at + 1]! << 8)]!;
