// The inner loops of a merge in AssemblyScript, which compiles to WebAssembly with 128-bit SIMD (`npm run build`).
// Addresses are bytes in the imported memory. Counts are whole vectors: of 4 elements in dot products, of 8 elsewhere.
export * from "./kernels-bfloat16";

/** Whether a float32 value is infinite or no number. */
export function holdsNonFinite(values: usize, count: usize): bool {
  const exponent = i32x4.splat(0x7f800000);
  let found = i32x4.splat(0);
  for (let i: usize = 0; i < count; i += 4) {
    found = v128.or(found, i32x4.eq(v128.and(v128.load(values + 4 * i), exponent), exponent));
  }
  return v128.any_true(found);
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

/** The dot products aa, ab and bb of the differences of a and b from a base, each as `dotOfDifferences` gives it. */
export function productsOfDifferences(base: usize, a: usize, b: usize, count: usize, target: usize): void {
  let evenAA = f64x2.splat(0);
  let evenAB = f64x2.splat(0);
  let evenBB = f64x2.splat(0);
  let oddAA = f64x2.splat(0);
  let oddAB = f64x2.splat(0);
  let oddBB = f64x2.splat(0);
  for (let i: usize = 0; i < count; i += 4) {
    const at: usize = 4 * i;
    const base0 = v128.load(base + at);
    const a0 = v128.load(a + at);
    const b0 = v128.load(b + at);
    const low = f64x2.promote_low_f32x4(base0);
    const high = f64x2.promote_low_f32x4(upper(base0));
    const lowA = f64x2.sub(f64x2.promote_low_f32x4(a0), low);
    const lowB = f64x2.sub(f64x2.promote_low_f32x4(b0), low);
    const highA = f64x2.sub(f64x2.promote_low_f32x4(upper(a0)), high);
    const highB = f64x2.sub(f64x2.promote_low_f32x4(upper(b0)), high);
    evenAA = f64x2.add(evenAA, f64x2.mul(lowA, lowA));
    evenAB = f64x2.add(evenAB, f64x2.mul(lowA, lowB));
    evenBB = f64x2.add(evenBB, f64x2.mul(lowB, lowB));
    oddAA = f64x2.add(oddAA, f64x2.mul(highA, highA));
    oddAB = f64x2.add(oddAB, f64x2.mul(highA, highB));
    oddBB = f64x2.add(oddBB, f64x2.mul(highB, highB));
  }
  store<f64>(target, total(f64x2.add(evenAA, oddAA)));
  store<f64>(target + 8, total(f64x2.add(evenAB, oddAB)));
  store<f64>(target + 16, total(f64x2.add(evenBB, oddBB)));
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

/** target_i = model_i - base_i in float32; zeros are positive. */
export function taskVector(base: usize, model: usize, count: usize, target: usize): void {
  const zero = f32x4.splat(0);
  for (let i: usize = 0; i < count; i += 4) {
    const at: usize = 4 * i;
    // -0 + 0 is 0.
    v128.store(target + at, f32x4.add(f32x4.sub(v128.load(model + at), v128.load(base + at)), zero));
  }
}

/** counts[m >> 16]++ for the magnitude bits m of each value. Counts are 32-bit integers. */
export function countUpper(bits: usize, count: usize, counts: usize): void {
  for (let i: usize = 0; i < count; i++) {
    const bin = counts + 4 * (<usize>(load<u32>(bits + 4 * i) & 0x7fffffff) >> 16);
    store<u32>(bin, load<u32>(bin) + 1);
  }
}

/** counts[m - first]++ for the magnitude bits m of each value, where that is from 0 to 65535. */
export function countLower(bits: usize, count: usize, first: u32, counts: usize): void {
  for (let i: usize = 0; i < count; i++) {
    const bin = (load<u32>(bits + 4 * i) & 0x7fffffff) - first;
    if (bin >= 0x10000) continue;
    const at = counts + 4 * <usize>bin;
    store<u32>(at, load<u32>(at) + 1);
  }
}

/** sums_i += counts_i, 32-bit integers. */
export function addCounts(counts: usize, count: usize, sums: usize): void {
  for (let i: usize = 0; i < count; i += 4) {
    v128.store(sums + 4 * i, i32x4.add(v128.load(sums + 4 * i), v128.load(counts + 4 * i)));
  }
}

/** How many values have exactly these magnitude bits. */
export function countMagnitude(bits: usize, count: usize, sought: i32): i32 {
  const mask = i32x4.splat(0x7fffffff);
  const wanted = i32x4.splat(sought);
  let found = i32x4.splat(0);
  for (let i: usize = 0; i < count; i += 4) {
    found = i32x4.sub(found, i32x4.eq(v128.and(v128.load(bits + 4 * i), mask), wanted));
  }
  return (
    i32x4.extract_lane(found, 0) +
    i32x4.extract_lane(found, 1) +
    i32x4.extract_lane(found, 2) +
    i32x4.extract_lane(found, 3)
  );
}

/** Sets to zero the values whose magnitude bits are not above `above`. */
export function keepLarger(bits: usize, count: usize, above: i32): void {
  const mask = i32x4.splat(0x7fffffff);
  const limit = i32x4.splat(above);
  for (let i: usize = 0; i < count; i += 4) {
    const values = v128.load(bits + 4 * i);
    v128.store(bits + 4 * i, v128.and(values, i32x4.gt_s(v128.and(values, mask), limit)));
  }
}

/**
 * Adds votes scale * value, which weigh `weight` each, for two elements at a time: their sum, the sum of their absolute
 * values, that of their weights (of votes that are not zero), and that of their weights with the signs of their votes.
 */
export function addVotes(
  values: usize,
  count: usize,
  scale: f64,
  weight: f64,
  sums: usize,
  sizes: usize,
  weights: usize,
  balances: usize,
): void {
  const scales = f64x2.splat(scale);
  const magnitudes = f64x2.splat(Math.abs(scale));
  const weighed = f64x2.splat(weight);
  const signed = f64x2.splat(scale > 0 ? weight : scale < 0 ? -weight : 0);
  const zero = f64x2.splat(0);
  const sign = i64x2.splat(0x8000000000000000);
  for (let i: usize = 0; i < count; i += 2) {
    const at: usize = 8 * i;
    const value = f64x2.promote_low_f32x4(v128.load64_zero(values + 4 * i));
    const isVote = f64x2.ne(value, zero);
    const balance = v128.and(isVote, v128.xor(signed, v128.and(value, sign)));
    v128.store(sums + at, f64x2.add(v128.load(sums + at), f64x2.mul(scales, value)));
    v128.store(sizes + at, f64x2.add(v128.load(sizes + at), f64x2.mul(magnitudes, f64x2.abs(value))));
    v128.store(weights + at, f64x2.add(v128.load(weights + at), v128.and(isVote, weighed)));
    v128.store(balances + at, f64x2.add(v128.load(balances + at), balance));
  }
}

/**
 * target_i = base_i + factor * the sum of the votes that have the sign of the majority (0 counts as positive), divided by
 * that of their weights where `normalize` says so and they are not 0.
 */
export function elect(
  base: usize,
  majority: usize,
  sums: usize,
  sizes: usize,
  weights: usize,
  balances: usize,
  count: usize,
  factor: f64,
  normalize: bool,
  tiny: f64,
  target: usize,
): void {
  const half = f64x2.splat(0.5);
  const one = f64x2.splat(1);
  const factors = f64x2.splat(factor);
  const least = f64x2.splat(tiny);
  const sign = i64x2.splat(0x8000000000000000);
  const zero = f64x2.splat(0);
  for (let i: usize = 0; i < count; i += 2) {
    const at: usize = 8 * i;
    const side = v128.or(half, v128.and(f64x2.add(v128.load(majority + at), zero), sign));
    const elected = f64x2.mul(
      factors,
      f64x2.add(f64x2.mul(half, v128.load(sums + at)), f64x2.mul(side, v128.load(sizes + at))),
    );
    let total = one;
    if (normalize) {
      const balance = f64x2.mul(side, v128.load(balances + at));
      total = f64x2.add(f64x2.add(f64x2.mul(half, v128.load(weights + at)), balance), least);
    }
    const start = f64x2.promote_low_f32x4(v128.load64_zero(base + 4 * i));
    const result = f32x4.demote_f64x2_zero(f64x2.add(start, f64x2.div(elected, total)));
    v128.store64_lane(target + 4 * i, result, 0);
  }
}
