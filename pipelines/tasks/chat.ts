/** The child of `heddle chat`: a conversation with a model, whose answers are told as they are sampled. */
import { promptMessages } from "../../distill/data.js";
import type { Message } from "../../model/chat.js";
import { ModelError } from "../../model/errors.js";
import { openModel } from "../../model/load.js";
import { loadParameters } from "../../model/loaded.js";
import { incrementalDecoder } from "../../model/tokenizer.js";
import { openStream } from "../../student/stream.js";
import { computeOf, type ModelOptions } from "../encoded-rows.js";
import { UserError } from "../errors.js";
import type { TaskContext } from "../events.js";

export type ChatParams = ModelOptions & {
  readonly maxNewTokens: number;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly seed: number;
  /** What stands before the first message. */
  readonly system: string | null;
};

export type ChatRequest =
  /** The user's next message. The answer is told by "text" events; the reply is how it ended. */
  | { readonly type: "say"; readonly text: string }
  /** Ends the answer that is being given; what was said stays in the conversation. */
  | { readonly type: "stop" }
  /** Begins a new conversation. */
  | { readonly type: "reset" };

/** By a stop token, cut off at maxNewTokens or at the end of the context, or because it was asked to stop. */
export type ChatEnd = "stop" | "length" | "context" | "stopped";

/** Loads the model and compiles its programs. */
export async function open(
  { model, adapter = null, dtype, loadIn4bit, loadIn8bit, system, maxNewTokens, ...choice }: ChatParams,
  context: TaskContext,
): Promise<(request: ChatRequest) => Promise<ChatEnd | null>> {
  const folder = await openModel(model, computeOf({ dtype, loadIn4bit, loadIn8bit }), adapter);
  const { chat, stopIds } = folder;
  if (folder.tokenizer === null) throw new ModelError(model, "no tokenizer.json, needed to chat");
  const { tokenizer } = folder;
  const first: Message[] = system === null ? [] : [{ role: "system", content: system }];
  const promptOf = (messages: readonly Message[]) =>
    chat.promptIds(promptMessages({ messages: [...first, ...messages] }, "fold", chat.takesSystem));
  const warmUp = await promptOf([{ role: "user", content: "." }]);
  const { config, parameters } = await loadParameters(folder);
  const stream = openStream(parameters, config);
  const options = { ...choice, stopIds, maxNewTokens };
  stream.complete(warmUp, options).next();

  let messages: Message[] = [];
  let isStopped = false;

  async function say(text: string): Promise<ChatEnd> {
    const said = [...messages, { role: "user", content: text }];
    const prompt = await promptOf(said);
    const room = config.maxPositionEmbeddings - prompt.length;
    if (room < 1) {
      const most = `the model's context is ${config.maxPositionEmbeddings}`;
      throw new UserError(`the conversation has ${prompt.length} tokens, and ${most}: /reset begins a new one`);
    }
    isStopped = false;
    const decode = incrementalDecoder(tokenizer);
    let answer = "";
    const tell = (piece: string) => {
      answer += piece;
      if (piece !== "") context.emit({ type: "text", text: piece });
    };
    let made = 0;
    let end: ChatEnd = room < maxNewTokens ? "context" : "length";
    for (const ids of stream.complete(prompt, { ...options, maxNewTokens: Math.min(room, maxNewTokens) })) {
      made += ids.length;
      if (stopIds.includes(ids.at(-1)!)) end = "stop";
      tell(await decode(ids));
      await context.breathe();
      if (!isStopped || end === "stop" || made === Math.min(room, maxNewTokens)) continue;
      end = "stopped";
      break;
    }
    tell(await decode([], { last: true }));
    messages = [...said, { role: "assistant", content: answer }];
    return end;
  }

  return async (request) => {
    if (request.type === "say") return say(request.text);
    if (request.type === "stop") isStopped = true;
    else messages = [];
    return null;
  };
}
