/** The terminal's side of `heddle chat`: lines in, answers out. The model lives in a child. */
import { createInterface } from "node:readline";
import { isUserError } from "./errors.js";
import { startHost } from "./process.js";
import type { ChatEnd, ChatParams, ChatRequest } from "./tasks/chat.js";

const PROMPT = "> ";

/** What is said of an answer that did not end by itself. */
const CUT: Record<Exclude<ChatEnd, "stop">, string> = {
  length: "cut off at --max-new-tokens",
  context: "cut off: the model's context is full; /reset begins a new conversation",
  stopped: "stopped",
};

/** Answers the lines of stdin until it ends, or until /exit. */
export async function chat(params: ChatParams): Promise<void> {
  const { stdin, stdout, stderr } = process;
  const isTerminal = Boolean(stdin.isTTY && stdout.isTTY);
  const note = (text: string) => stderr.write(`${text}\n`);
  const host = startHost("chat", params, (event) => {
    if (event.type === "text") stdout.write(event.text);
    else if (event.type === "note" || event.type === "output") note(event.text);
  });
  const input = createInterface({
    input: stdin,
    terminal: isTerminal,
    prompt: PROMPT,
    ...(isTerminal ? { output: stdout } : {}),
  });
  const lines = input[Symbol.asyncIterator]();

  let isAnswering = false;
  let leave = () => {};
  const left = new Promise<null>((resolve) => {
    leave = () => resolve(null);
  });
  const onInterrupt = () => {
    if (isAnswering) {
      isAnswering = false;
      void host.request<null>({ type: "stop" } satisfies ChatRequest).catch(() => {});
    } else if (isTerminal && input.line !== "") {
      input.write(null, { ctrl: true, name: "e" });
      input.write(null, { ctrl: true, name: "u" });
    } else {
      leave();
    }
  };
  input.on("SIGINT", onInterrupt);
  process.on("SIGINT", onInterrupt);

  const answer = async (text: string): Promise<void> => {
    isAnswering = true;
    try {
      const end = await host.request<ChatEnd>({ type: "say", text } satisfies ChatRequest);
      stdout.write("\n");
      if (end !== "stop") note(`(${CUT[end]})`);
    } catch (error) {
      if (!isTerminal || !isUserError(error)) throw error;
      note(`error: ${error.message}`);
    } finally {
      isAnswering = false;
    }
  };

  try {
    if (isTerminal) note(`loading ${params.model}`);
    if ((await Promise.race([host.ready, left])) === null) return;
    if (isTerminal) note("/reset begins a new conversation, /exit leaves, Ctrl-C ends an answer");
    for (;;) {
      if (isTerminal) input.prompt();
      const next = await Promise.race([lines.next(), left]);
      if (next === null || next.done) {
        if (isTerminal) stdout.write("\n");
        break;
      }
      if (next.value.trim() === "/exit") break;
      const line = next.value;
      if (line.trim() === "/reset") await host.request({ type: "reset" } satisfies ChatRequest);
      else if (/^\/\S*\s*$/.test(line)) note(`no such command: ${line.trim()} (there are /reset and /exit)`);
      else if (line.trim() !== "") await answer(line);
    }
  } finally {
    input.close();
    process.off("SIGINT", onInterrupt);
    await host.close();
  }
}
