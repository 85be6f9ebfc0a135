// Stage 3 of WARP: linear interpolation towards the initialisation (arXiv 2406.16768, section 3.3).
import { addTaskVectors } from "./task-vectors.js";

/** init + eta (model - init). `eta` is from 0 (the init) to 1 (the model). */
export function liti(init: Float32Array, model: Float32Array, eta: number): Float32Array {
  checkEta(eta);
  return addTaskVectors(init, [model], [eta]);
}

export function checkEta(eta: number): void {
  if (!(eta >= 0 && eta <= 1)) throw new RangeError(`eta should be a number from 0 to 1, got ${eta}`);
}
