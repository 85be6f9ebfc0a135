/** TensorFlow writes greetings to stderr that no setting silences. They are dropped; everything else is passed on. */
import type { Readable } from "node:stream";

const noise = [
  /^WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR/,
  // absl's log line of severity INFO: "I0000 00:00:1795492803.754454    7012 port.cc:153] oneDNN custom operations are on."
  /^I\d{4} \d\d:\d\d:[\d.]+ +\d+ \S+:\d+\] /,
  // The same in TensorFlow's own format: "2026-01-01 00:00:00.000000: I tensorflow/core/platform/cpu_feature_guard.cc:210] ..."
  /^\d{4}-\d\d-\d\d \d\d:\d\d:[\d.]+: I \S+:\d+\] /,
  /^To enable the following instructions: /,
];

export const isNativeNoise = (line: string): boolean => noise.some((pattern) => pattern.test(line));

/** Calls onLine for each line of a stream, the last one too when it has no end. Resolves when the stream has ended. */
export async function forEachLine(stream: Readable, onLine: (line: string) => void): Promise<void> {
  let rest = "";
  stream.setEncoding("utf8");
  for await (const chunk of stream) {
    const lines = `${rest}${chunk}`.split("\n");
    rest = lines.pop()!;
    for (const line of lines) onLine(line);
  }
  if (rest !== "") onLine(rest);
}
