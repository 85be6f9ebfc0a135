// Ranks of the magnitudes within a row.

const DIGIT_BITS = 8;
const DIGITS = 2 ** DIGIT_BITS;
const MAGNITUDE = 0x7fffffff;

/** Sorts by the four bytes of the magnitudes' bits, the lowest first: 4 readings of a row whatever its length. */
export class RowRanks {
  readonly #keys: [Int32Array, Int32Array];
  readonly #order: [Int32Array, Int32Array];
  readonly #ranks: Int32Array;
  readonly #counts = new Int32Array(4 * DIGITS);

  /** Room for rows of so many elements. */
  constructor(readonly columns: number) {
    const room = () => new Int32Array(columns);
    this.#keys = [room(), room()];
    this.#order = [room(), room()];
    this.#ranks = room();
  }

  /**
   * For each element of the row that begins at `start`: how many have a smaller magnitude, or the same and come before it.
   * `bits` are those of float32 values. The array is valid until the next call.
   */
  of(bits: Int32Array, start: number): Int32Array {
    let [keys, nextKeys] = this.#keys;
    let [order, nextOrder] = this.#order;
    const counts = this.#counts.fill(0);
    for (let i = 0; i < keys.length; i++) {
      const key = bits[start + i]! & MAGNITUDE;
      keys[i] = key;
      order[i] = i;
      counts[key & 0xff]!++;
      counts[DIGITS + ((key >>> 8) & 0xff)]!++;
      counts[2 * DIGITS + ((key >>> 16) & 0xff)]!++;
      counts[3 * DIGITS + (key >>> 24)]!++;
    }
    for (let digit = 0; digit < 4; digit++) {
      const places = counts.subarray(digit * DIGITS, (digit + 1) * DIGITS);
      countsToPlaces(places);
      distribute(keys, order, nextKeys, nextOrder, places, digit * DIGIT_BITS);
      [keys, nextKeys] = [nextKeys, keys];
      [order, nextOrder] = [nextOrder, order];
    }
    const ranks = this.#ranks;
    for (let rank = 0; rank < ranks.length; rank++) ranks[order[rank]!] = rank;
    return ranks;
  }
}

/** The place of the first key of each digit. */
function countsToPlaces(counts: Int32Array): void {
  let place = 0;
  for (let digit = 0; digit < counts.length; digit++) {
    const count = counts[digit]!;
    counts[digit] = place;
    place += count;
  }
}

function distribute(
  keys: Int32Array,
  order: Int32Array,
  nextKeys: Int32Array,
  nextOrder: Int32Array,
  places: Int32Array,
  shift: number,
): void {
  for (let i = 0; i < keys.length; i++) {
    const key = keys[i]!;
    const place = places[(key >>> shift) & (DIGITS - 1)]!++;
    nextKeys[place] = key;
    nextOrder[place] = order[i]!;
  }
}
