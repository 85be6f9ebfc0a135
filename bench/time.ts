/** How a time is measured and reported: one line of JSON, the same that the peers' scripts print. */

/** Seconds that `work` takes: the first runs, which compile, are left out. */
export const timed = (name: string, work: () => void): void =>
  print({ name, ...secondsOf(work), peak_rss_mb: peakRssMb() });

export function secondsOf(work: () => void, runs = 7, warmUp = 2): ReturnType<typeof summary> {
  const seconds: number[] = [];
  for (let i = 0; i < warmUp + runs; i++) {
    const begin = performance.now();
    work();
    if (i >= warmUp) seconds.push((performance.now() - begin) / 1000);
  }
  return summary(seconds);
}

/** What is told of several times, in seconds. */
export const summary = (seconds: readonly number[]) => ({
  median_s: median(seconds),
  min_s: Math.min(...seconds),
  runs: seconds.length,
});

export const print = (line: object): void => {
  process.stdout.write(`${JSON.stringify(line)}\n`);
};

export const median = (numbers: readonly number[]): number =>
  [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)]!;

/** Largest resident memory of this process so far. */
export const peakRssMb = (): number => Math.round(process.resourceUsage().maxRSS / 1024);
