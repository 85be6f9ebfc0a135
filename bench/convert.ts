/** Gigabytes of float32 a second, on one core, that become bfloat16 or are made of it, in memory that is there already. */
import { type FloatDtype, fromFloat32, toFloat32 } from "safetensors-ts";
import { median, print } from "./time.js";

/** 32 MB of float32: more than the caches hold, as a tensor of a model is. */
const ELEMENTS = 2 ** 23;
const RUNS = 9;
const WARM_UP = 2;

const values = Float32Array.from({ length: ELEMENTS }, () => Math.random() - 0.5);

function measure(name: string, work: () => void): void {
  const rates: number[] = [];
  for (let i = 0; i < WARM_UP + RUNS; i++) {
    const begin = performance.now();
    work();
    if (i >= WARM_UP) rates.push(values.byteLength / 1e6 / (performance.now() - begin));
  }
  print({
    name,
    median_gb_s: Number(median(rates).toFixed(2)),
    max_gb_s: Number(Math.max(...rates).toFixed(2)),
    runs: RUNS,
  });
}

for (const dtype of ["BF16", "F16"] as const satisfies FloatDtype[]) {
  const data = fromFloat32(values, dtype);
  const into = new Float32Array(ELEMENTS);
  measure(`${dtype} to F32`, () => toFloat32(data, dtype, into));
  measure(`F32 to ${dtype}`, () => fromFloat32(values, dtype, data));
}
