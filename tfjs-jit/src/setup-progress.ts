// How a download is shown: a bar on a terminal, a line for each quarter elsewhere.

import { formatBytes } from "./setup-cache.js";

const barWidth = 30;

/** One line for a terminal: [#####.....] 123 of 274 MB, 54 MB/s, 3 s left */
export function progressBar(done: number, total: number, elapsedMs: number): string {
  const share = Math.min(1, done / total);
  const filled = Math.round(share * barWidth);
  const bytesPerSecond = (done / Math.max(1, elapsedMs)) * 1000;
  const left = done > 0 ? `, ${Math.ceil((total - done) / bytesPerSecond)} s left` : "";
  const bar = "#".repeat(filled) + ".".repeat(barWidth - filled);
  return `[${bar}] ${formatBytes(done)} of ${formatBytes(total)}, ${formatBytes(bytesPerSecond)}/s${left}`;
}

/** The progress function for setup(). The bar erases itself at the end. */
export function showProgress(stream: NodeJS.WriteStream): (done: number, total: number) => void {
  const started = performance.now();
  let quarters = 0;
  return (done, total) => {
    if (stream.isTTY) {
      stream.write(done < total ? `\r\x1b[K${progressBar(done, total, performance.now() - started)}` : "\r\x1b[K");
    } else if (Math.floor((4 * done) / total) > quarters) {
      quarters = Math.floor((4 * done) / total);
      stream.write(`downloaded ${formatBytes(done)} of ${formatBytes(total)}\n`);
    }
  };
}
