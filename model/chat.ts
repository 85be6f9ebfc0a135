/** Conversations to token ids: the model's own chat template, rendered with Hugging Face's jinja. */
import { join } from "node:path";
import { type ChatTemplate, loadTemplate, type Message } from "./chat-template.js";
import { ModelError } from "./errors.js";
import { type JsonObject, readJsonIfAny } from "./json.js";
import { splitAtTokens, standIns } from "./plain-content.js";
import type { Tokenizer } from "./tokenizer.js";

export type { Message };

/** How the texts of messages are taken. */
export type ContentOptions = {
  /**
   * Control tokens that a text spells out, such as `<end_of_turn>`, become theirs, as in transformers. Otherwise they are
   * the ids of their letters: what a user writes does not end the turn.
   */
  readonly allowControlTokens?: boolean;
};

/** A conversation as ids: which of them, from `begin` up to `end`, the assistant says (the ends of its turns included). */
export type Conversation = {
  readonly ids: readonly number[];
  readonly answers: readonly { readonly begin: number; readonly end: number }[];
};

export interface Chat {
  /** False: conversations cannot be rendered, plain texts can be encoded. */
  readonly hasTemplate: boolean;
  /** Whether the template knows the role "system", rather than refusing it or leaving it out. */
  readonly takesSystem: boolean;
  /** The conversation as text, up to where the model's answer begins. Control tokens are told from texts by no mark. */
  renderPrompt(messages: readonly Message[]): string;
  /** The ids of the conversation up to where the model's answer begins, with exactly one `<bos>` in front. */
  promptIds(messages: readonly Message[], options?: ContentOptions): Promise<number[]>;
  /**
   * The ids of the conversation up to where the answer begins, without blanks at its end, and those of all of it followed by
   * each of the texts, as one text.
   */
  promptWith(
    messages: readonly Message[],
    texts: readonly string[],
    options?: ContentOptions,
  ): Promise<{ prompt: number[]; continued: number[][] }>;
  /**
   * The ids of the conversation as it stands, and where the assistant's messages are in it: those after the prompt that
   * each answers, so that what is learned is what will be sampled. Up to where an answer begins if the user has the last
   * word. @throws ModelError where the template renders a prompt otherwise once it is answered
   */
  conversation(messages: readonly Message[], options?: ContentOptions): Promise<Conversation>;
  /** The ids of the conversation as the template renders it to its end, and opens no answer, with exactly one `<bos>` in front. */
  wholeIds(messages: readonly Message[], options?: ContentOptions): Promise<number[]>;
  /** Token ids of a plain text, not rendered, with exactly one `<bos>` in front. Control tokens it spells out are theirs. */
  textIds(text: string): Promise<number[]>;
}

/**
 * The chat template of a folder: chat_template.jinja, else `chat_template` in tokenizer_config.json.
 * A folder without template or tokenizer opens too; what needs them is then a ModelError.
 */
export async function loadChat(dir: string, tokenizer: Tokenizer | null): Promise<Chat> {
  const path = join(dir, "tokenizer_config.json");
  const config = (await readJsonIfAny(path)) ?? {};
  const bos = specialToken(path, config, "bos_token");
  const template = await loadTemplate(dir, config, {
    bos_token: bos ?? "",
    eos_token: specialToken(path, config, "eos_token") ?? "",
  });
  const needTokenizer = (): Tokenizer => {
    if (tokenizer) return tokenizer;
    throw new ModelError(join(dir, "tokenizer.json"), "no such file, needed to turn text into token ids");
  };
  const needTemplate = (): ChatTemplate => {
    if (template) return template;
    throw new ModelError(
      dir,
      'no chat template (chat_template.jinja, or "chat_template" in tokenizer_config.json), needed for conversations: ' +
        "put the one of the instruction-tuned model there, or give prompts, which are then plain texts",
    );
  };
  const oneBos = (ids: readonly number[]): number[] => withOneBos(ids, bos === null ? null : needTokenizer().idOf(bos));

  /** The messages to render, and the ids of what is rendered of them. */
  const contentOf = (messages: readonly Message[], { allowControlTokens = false }: ContentOptions) => {
    const { encode, encodePlain, specialTokens, idOf } = needTokenizer();
    const { messages: marked, restore } = allowControlTokens
      ? { messages, restore: null }
      : standIns(messages, specialTokens);
    if (restore === null) return { marked, idsOf: encode };
    const idsOf = async (text: string): Promise<number[]> => {
      const pieces = splitAtTokens(text, specialTokens);
      return (
        await Promise.all(pieces.map(({ text, isToken }) => (isToken ? [idOf(text)!] : encodePlain(restore(text)))))
      ).flat();
    };
    return { marked, idsOf };
  };

  const renderedIds = async (messages: readonly Message[], opensAnswer: boolean, options: ContentOptions) => {
    const { render } = needTemplate();
    const { marked, idsOf } = contentOf(messages, options);
    return oneBos(await idsOf(render(marked, opensAnswer)));
  };

  return {
    hasTemplate: template !== null,
    takesSystem: template?.takesSystem ?? false,
    renderPrompt: (messages) => needTemplate().render(messages, true),
    textIds: async (text) => oneBos(await needTokenizer().encode(text)),
    promptIds: (messages, options = {}) => renderedIds(messages, true, options),
    wholeIds: (messages, options = {}) => renderedIds(messages, false, options),
    promptWith: async (messages, texts, options = {}) => {
      const { render } = needTemplate();
      const answers = texts.map((content) => ({ role: "assistant", content }));
      const { marked, idsOf } = contentOf([...messages, ...answers], options);
      const text = render(marked.slice(0, messages.length), true);
      const idsWith = async (whole: string) => oneBos(await idsOf(whole));
      const [prompt, ...continued] = await Promise.all([
        idsWith(text.trimEnd()),
        ...marked.slice(messages.length).map(({ content }) => idsWith(text + content)),
      ]);
      return { prompt: prompt!, continued };
    },
    conversation: async (messages, options = {}) => {
      const { marked, idsOf } = contentOf(messages, options);
      const pieces = piecesOf(needTemplate(), marked);
      const pieceIds = await Promise.all(pieces.map(({ text }) => idsOf(text)));
      pieceIds[0] = oneBos(pieceIds[0]!);
      const answers: { begin: number; end: number }[] = [];
      let begin = 0;
      pieceIds.forEach(({ length }, i) => {
        if (pieces[i]!.isAnswer) answers.push({ begin, end: begin + length });
        begin += length;
      });
      return { ids: pieceIds.flat(), answers };
    },
  };
}

/** What is rendered, cut where the assistant's messages begin and end. */
function piecesOf({ render, path }: ChatTemplate, messages: readonly Message[]): { text: string; isAnswer: boolean }[] {
  const pieces: { text: string; isAnswer: boolean }[] = [];
  let done = "";
  const add = (text: string, isAnswer: boolean): void => {
    if (!text.startsWith(done) || text.length === done.length)
      throw new ModelError(
        path,
        "the chat template renders a prompt otherwise once it is answered, so the answer cannot be told from it",
      );
    pieces.push({ text: text.slice(done.length), isAnswer });
    done = text;
  };
  messages.forEach(({ role }, i) => {
    if (role !== "assistant") return;
    add(render(messages.slice(0, i), true), false);
    add(render(messages.slice(0, i + 1), false), true);
  });
  if (messages.at(-1)?.role !== "assistant") add(render(messages, true), false);
  return pieces;
}

/** `ids` with exactly one `bos` in front; as they are where the model has none. */
export function withOneBos(ids: readonly number[], bos: number | null): number[] {
  if (bos === null) return [...ids];
  const first = ids.findIndex((id) => id !== bos);
  return [bos, ...(first < 0 ? [] : ids.slice(first))];
}

/** A special token of tokenizer_config.json: a string, or an object that holds it as `content`. */
function specialToken(path: string, config: JsonObject, key: string): string | null {
  const value = config[key] ?? null;
  const content = typeof value === "object" && value !== null ? (value as JsonObject).content : value;
  if (content === null || typeof content === "string") return content;
  throw new ModelError(
    path,
    `"${key}" is ${JSON.stringify(value).slice(0, 60)}, expected a token or {"content": token}`,
  );
}
