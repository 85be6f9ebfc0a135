// A method on one tensor in memory, cut into parts as the streaming engine cuts it: for libraries and tests.
import { addSums, combinePart, type Method, measurePart, type Settings } from "./method.js";
import { cutParts } from "./parts.js";

/** The same tensor of each source. */
export interface TensorSources {
  readonly base: Float32Array | null;
  readonly models: readonly Float32Array[];
  readonly shape: readonly number[];
}

/** Merges one tensor; its passes sum over this tensor alone, whatever the method's granularity. */
export function mergeTensor(
  method: Method,
  sources: TensorSources,
  settings: Settings,
  partElements?: number,
): Float32Array {
  method.check?.(settings);
  const parts = cutParts(sources.shape, method.needsRows === true, partElements).map((range) => {
    const cut = (values: Float32Array) => values.subarray(range.start, range.start + range.length);
    return { ...range, base: sources.base && cut(sources.base), models: sources.models.map(cut) };
  });

  const known: (readonly number[])[] = [];
  for (const pass of method.passes) {
    if (pass.isNeeded && !pass.isNeeded(known, settings)) {
      known.push([]);
      continue;
    }
    let sums: Float64Array | null = null;
    for (const part of parts) {
      const next = measurePart(pass, part, settings, known);
      sums ??= new Float64Array(next.length);
      addSums(sums, next instanceof Float64Array ? next : Float64Array.from(next));
    }
    known.push(pass.conclude(sums!, settings, known));
  }

  const out = new Float32Array(sources.models[0]!.length);
  for (const part of parts) {
    combinePart(method, part, settings, known, out.subarray(part.start, part.start + part.length));
  }
  return out;
}
