// Which of two threads does a job: a worker that has it in hand, or the thread that handed it out and has nothing to do.

/** Jobs that may be in a worker's hand: the numbers of the oldest and the newest differ by less than this. */
export const MAX_CLAIMS = 64;

/** Memory that both threads see: a place for every job in hand, which holds its number and 1 until one has claimed it. */
export type Claims = Int32Array;

export const newClaims = (): Claims => new Int32Array(new SharedArrayBuffer(4 * MAX_CLAIMS));

/** Before job number `id`, from 0, is handed out. */
export function offer(claims: Claims, id: number): void {
  Atomics.store(claims, id % MAX_CLAIMS, id + 1);
}

/** Whether the thread that asks is the one to do the job: the first that asks is. */
export const claim = (claims: Claims, id: number): boolean =>
  Atomics.compareExchange(claims, id % MAX_CLAIMS, id + 1, 0) === id + 1;
