/** A host that is started again whenever its process dies. */
import { setTimeout as sleep } from "node:timers/promises";
import { ScorerUnavailable } from "../teacher/server.js";
import type { Host } from "./process.js";

export interface RestartingHost {
  /** Resolves when the first process can answer; rejects with the reason why it cannot: then nothing is started again. */
  ready: Promise<void>;
  /** Rejects with ScorerUnavailable while no process can answer, or when it died over this message. */
  request<Reply>(message: unknown): Promise<Reply>;
  /** Why nothing can be asked now, or null. */
  unavailable(): string | null;
  /** Ends the process for good. */
  close(): Promise<void>;
}

const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 30_000;

/** `note` is told each time a process has died. */
export function restartingHost(start: () => Host, note: (text: string) => void): RestartingHost {
  let host = start();
  let problem: string | null = "the model is loading";
  let isClosed = false;
  const ready = host.ready.then(() => {
    problem = null;
    void keepRunning();
  });
  ready.catch((error: Error) => {
    problem = error.message;
  });

  async function keepRunning(): Promise<void> {
    for (let waitMs = FIRST_WAIT_MS; ; waitMs = Math.min(2 * waitMs, LONGEST_WAIT_MS)) {
      const ended = await host.exited;
      if (isClosed) return;
      problem = `${firstLine(ended)}; it is started again`;
      note(`${ended?.message}\nStarting it again`);
      await sleep(waitMs);
      if (isClosed) return;
      host = start();
      await host.ready.then(
        () => {
          problem = null;
          waitMs = FIRST_WAIT_MS / 2;
        },
        () => {},
      );
    }
  }

  return {
    ready,
    unavailable: () => problem,
    request: async <Reply>(message: unknown) => {
      if (problem !== null) throw new ScorerUnavailable(problem);
      const asked = host;
      try {
        return await asked.request<Reply>(message);
      } catch (error) {
        // What the model's code threw is told as it is; a process that died takes its requests along.
        const hasDied = await Promise.race([
          asked.exited.then(() => true),
          new Promise<false>((no) => setImmediate(no, false)),
        ]);
        throw hasDied ? new ScorerUnavailable(firstLine(error), { cause: error }) : error;
      }
    },
    close: async () => {
      isClosed = true;
      problem = "the server is stopping";
      await host.close();
    },
  };
}

const firstLine = (error: unknown) => (error instanceof Error ? error.message : String(error)).split("\n", 1)[0]!;
