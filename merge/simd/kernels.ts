// The inner loops of a merge in AssemblyScript, which compiles to WebAssembly with 128-bit SIMD (`npm run build`).
// Addresses are bytes in the imported memory. Counts are whole vectors: of 4 elements in dot products, of 8 elsewhere.

/** bfloat16 to float32. Returns whether a value is infinite or no number. */
export function decodeBfloat16(source: usize, count: usize, target: usize): bool {
  const zero = i16x8.splat(0);
  const exponent = i32x4.splat(0x7f800000);
  let found = i32x4.splat(0);
  for (let i: usize = 0; i < count; i += 8) {
    const halves = v128.load(source + 2 * i);
    const low = i16x8.shuffle(zero, halves, 0, 8, 1, 9, 2, 10, 3, 11);
    const high = i16x8.shuffle(zero, halves, 4, 12, 5, 13, 6, 14, 7, 15);
    found = v128.or(found, i32x4.eq(v128.and(low, exponent), exponent));
    found = v128.or(found, i32x4.eq(v128.and(high, exponent), exponent));
    v128.store(target + 4 * i, low);
    v128.store(target + 4 * i + 16, high);
  }
  return v128.any_true(found);
}

/** Whether a float32 value is infinite or no number. */
export function holdsNonFinite(values: usize, count: usize): bool {
  const exponent = i32x4.splat(0x7f800000);
  let found = i32x4.splat(0);
  for (let i: usize = 0; i < count; i += 4) {
    found = v128.or(found, i32x4.eq(v128.and(v128.load(values + 4 * i), exponent), exponent));
  }
  return v128.any_true(found);
}

/** float32 to bfloat16, to nearest even. The values are finite. */
export function encodeBfloat16(source: usize, count: usize, target: usize): void {
  const one = i32x4.splat(1);
  const half = i32x4.splat(0x7fff);
  for (let i: usize = 0; i < count; i += 8) {
    let low = v128.load(source + 4 * i);
    let high = v128.load(source + 4 * i + 16);
    low = i32x4.add(i32x4.add(low, half), v128.and(i32x4.shr_u(low, 16), one));
    high = i32x4.add(i32x4.add(high, half), v128.and(i32x4.shr_u(high, 16), one));
    v128.store(target + 2 * i, i16x8.shuffle(low, high, 1, 3, 5, 7, 9, 11, 13, 15));
  }
}

/** Sum over i of (a_i - base_i)(b_i - base_i) in float64, four running sums. */
export function dotOfDifferences(base: usize, a: usize, b: usize, count: usize): f64 {
  let even = f64x2.splat(0);
  let odd = f64x2.splat(0);
  for (let i: usize = 0; i < count; i += 4) {
    const at: usize = 4 * i;
    const base0 = v128.load(base + at);
    const a0 = v128.load(a + at);
    const b0 = v128.load(b + at);
    const low = f64x2.promote_low_f32x4(base0);
    const high = f64x2.promote_low_f32x4(upper(base0));
    even = f64x2.add(
      even,
      f64x2.mul(f64x2.sub(f64x2.promote_low_f32x4(a0), low), f64x2.sub(f64x2.promote_low_f32x4(b0), low)),
    );
    odd = f64x2.add(
      odd,
      f64x2.mul(
        f64x2.sub(f64x2.promote_low_f32x4(upper(a0)), high),
        f64x2.sub(f64x2.promote_low_f32x4(upper(b0)), high),
      ),
    );
  }
  return total(f64x2.add(even, odd));
}

/** Sum over i of a_i b_i in float64, four running sums. */
export function dot(a: usize, b: usize, count: usize): f64 {
  let even = f64x2.splat(0);
  let odd = f64x2.splat(0);
  for (let i: usize = 0; i < count; i += 4) {
    const a0 = v128.load(a + 4 * i);
    const b0 = v128.load(b + 4 * i);
    even = f64x2.add(even, f64x2.mul(f64x2.promote_low_f32x4(a0), f64x2.promote_low_f32x4(b0)));
    odd = f64x2.add(odd, f64x2.mul(f64x2.promote_low_f32x4(upper(a0)), f64x2.promote_low_f32x4(upper(b0))));
  }
  return total(f64x2.add(even, odd));
}

/**
 * target_i = sum over s of weights[s] source[s]_i, in float64, rounded to float32 once.
 * `terms` points to `sources` entries of 16 bytes: a float64 weight, then the address of a source as a 32-bit integer.
 */
export function weightedSum(terms: usize, sources: usize, count: usize, target: usize): void {
  const end = terms + 16 * sources;
  for (let i: usize = 0; i < count; i += 8) {
    let sum0 = f64x2.splat(0);
    let sum2 = f64x2.splat(0);
    let sum4 = f64x2.splat(0);
    let sum6 = f64x2.splat(0);
    for (let term = terms; term < end; term += 16) {
      const weight = v128.load64_splat(term);
      const source = <usize>load<u32>(term + 8) + 4 * i;
      const low = v128.load(source);
      const high = v128.load(source + 16);
      sum0 = f64x2.add(sum0, f64x2.mul(weight, f64x2.promote_low_f32x4(low)));
      sum2 = f64x2.add(sum2, f64x2.mul(weight, f64x2.promote_low_f32x4(upper(low))));
      sum4 = f64x2.add(sum4, f64x2.mul(weight, f64x2.promote_low_f32x4(high)));
      sum6 = f64x2.add(sum6, f64x2.mul(weight, f64x2.promote_low_f32x4(upper(high))));
    }
    v128.store(target + 4 * i, demote(sum0, sum2));
    v128.store(target + 4 * i + 16, demote(sum4, sum6));
  }
}

function demote(low: v128, high: v128): v128 {
  return i32x4.shuffle(f32x4.demote_f64x2_zero(low), f32x4.demote_f64x2_zero(high), 0, 1, 4, 5);
}

function upper(values: v128): v128 {
  return i32x4.shuffle(values, values, 2, 3, 2, 3);
}

function total(sums: v128): f64 {
  return f64x2.extract_lane(sums, 0) + f64x2.extract_lane(sums, 1);
}
