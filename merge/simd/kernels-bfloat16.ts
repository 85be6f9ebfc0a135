// The kernels on bfloat16, which is the upper half of a float32. Counts are of elements, in whole vectors of 8, of 16 in weighted sums.

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

/** float32 to bfloat16, to nearest even. The values are finite. */
export function encodeBfloat16(source: usize, count: usize, target: usize): void {
  for (let i: usize = 0; i < count; i += 8) {
    const low = v128.load(source + 4 * i);
    const high = v128.load(source + 4 * i + 16);
    v128.store(target + 2 * i, i16x8.shuffle(rounded(low), rounded(high), 1, 3, 5, 7, 9, 11, 13, 15));
  }
}

/**
 * Adds the dot products aa, ab and bb of the differences of a and b from a base to the running sums at `sums`, two float64
 * for each product. Differences and products are float32; 64 of these, 8 in each of 8 sums, are added before they are float64.
 */
export function addProductsBfloat16(base: usize, a: usize, b: usize, count: usize, sums: usize): void {
  let sumAA = v128.load(sums);
  let sumAB = v128.load(sums + 16);
  let sumBB = v128.load(sums + 32);
  for (let i: usize = 0; i < count; ) {
    let evenAA = f32x4.splat(0);
    let evenAB = f32x4.splat(0);
    let evenBB = f32x4.splat(0);
    let oddAA = f32x4.splat(0);
    let oddAB = f32x4.splat(0);
    let oddBB = f32x4.splat(0);
    for (const end = min(i + 64, count); i < end; i += 8) {
      const bases = v128.load(base + 2 * i);
      const first = v128.load(a + 2 * i);
      const second = v128.load(b + 2 * i);
      const evenA = f32x4.sub(evens(first), evens(bases));
      const evenB = f32x4.sub(evens(second), evens(bases));
      const oddA = f32x4.sub(odds(first), odds(bases));
      const oddB = f32x4.sub(odds(second), odds(bases));
      evenAA = f32x4.add(evenAA, f32x4.mul(evenA, evenA));
      evenAB = f32x4.add(evenAB, f32x4.mul(evenA, evenB));
      evenBB = f32x4.add(evenBB, f32x4.mul(evenB, evenB));
      oddAA = f32x4.add(oddAA, f32x4.mul(oddA, oddA));
      oddAB = f32x4.add(oddAB, f32x4.mul(oddA, oddB));
      oddBB = f32x4.add(oddBB, f32x4.mul(oddB, oddB));
    }
    sumAA = f64x2.add(sumAA, pairs(f32x4.add(evenAA, oddAA)));
    sumAB = f64x2.add(sumAB, pairs(f32x4.add(evenAB, oddAB)));
    sumBB = f64x2.add(sumBB, pairs(f32x4.add(evenBB, oddBB)));
  }
  v128.store(sums, sumAA);
  v128.store(sums + 16, sumAB);
  v128.store(sums + 32, sumBB);
}

/**
 * target_i = sum over s of weights[s] source[s]_i, weights, products and sums in float32, rounded to nearest even. Returns
 * whether a sum, and so a source, is infinite or no number. `terms` are as in `weightedSum`, with a float32 weight behind.
 */
export function weightedSumBfloat16(terms: usize, sources: usize, count: usize, target: usize): bool {
  const end = terms + 16 * sources;
  let found = i32x4.splat(0);
  for (let i: usize = 0; i < count; i += 16) {
    let even0 = f32x4.splat(0);
    let odd0 = f32x4.splat(0);
    let even8 = f32x4.splat(0);
    let odd8 = f32x4.splat(0);
    for (let term = terms; term < end; term += 16) {
      const weight = v128.load32_splat(term + 12);
      const source = <usize>load<u32>(term + 8) + 2 * i;
      const first = v128.load(source);
      const second = v128.load(source + 16);
      even0 = f32x4.add(even0, f32x4.mul(weight, evens(first)));
      odd0 = f32x4.add(odd0, f32x4.mul(weight, odds(first)));
      even8 = f32x4.add(even8, f32x4.mul(weight, evens(second)));
      odd8 = f32x4.add(odd8, f32x4.mul(weight, odds(second)));
    }
    found = orNonFinite(orNonFinite(found, even0), odd0);
    found = orNonFinite(orNonFinite(found, even8), odd8);
    v128.store(target + 2 * i, join(even0, odd0));
    v128.store(target + 2 * i + 16, join(even8, odd8));
  }
  return v128.any_true(found);
}

/** The bfloat16 at even places as float32. Cheaper than the first four and the last four: shifts and masks, no shuffles. */
function evens(halves: v128): v128 {
  return i32x4.shl(halves, 16);
}

/** Those at odd places. */
function odds(halves: v128): v128 {
  return v128.and(halves, i32x4.splat(0xffff0000));
}

/** Finite float32 values at even and odd places, as bfloat16 in order: a shuffle that keeps all places is one instruction. */
function join(even: v128, odd: v128): v128 {
  return i16x8.shuffle(i32x4.shr_u(rounded(even), 16), rounded(odd), 0, 9, 2, 11, 4, 13, 6, 15);
}

/** Bits of `found`, and some where a value is infinite or no number: x - x is 0 of all others. */
function orNonFinite(found: v128, values: v128): v128 {
  return v128.or(found, f32x4.sub(values, values));
}

/** Finite float32 values whose upper halves are rounded to nearest even; the lower ones are arbitrary. */
function rounded(values: v128): v128 {
  const one = i32x4.splat(1);
  const half = i32x4.splat(0x7fff);
  return i32x4.add(i32x4.add(values, half), v128.and(i32x4.shr_u(values, 16), one));
}

/** Sums of the first two and the last two of four float32, as float64. */
function pairs(values: v128): v128 {
  const upper = i32x4.shuffle(values, values, 2, 3, 2, 3);
  return f64x2.add(f64x2.promote_low_f32x4(values), f64x2.promote_low_f32x4(upper));
}
