import type { Readable } from "node:stream";

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
