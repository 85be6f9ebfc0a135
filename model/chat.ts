/** Conversations to token ids: the model's own chat template, rendered with Hugging Face's jinja. */
import { join } from "node:path";
import { Template } from "@huggingface/jinja";
import { ModelError } from "./errors.js";
import { type JsonObject, readJsonIfAny, readTextIfAny } from "./json.js";
import type { Tokenizer } from "./tokenizer.js";

export interface Message {
  readonly role: string;
  readonly content: string;
}

export interface Chat {
  /** False: conversations cannot be rendered, plain texts can be encoded. */
  readonly hasTemplate: boolean;
  /** The conversation as text, up to where the model's answer begins. */
  renderPrompt(messages: readonly Message[]): string;
  /** Its token ids, with exactly one `<bos>` in front. */
  promptIds(messages: readonly Message[]): Promise<number[]>;
  /** Token ids of a plain text, not rendered, with exactly one `<bos>` in front. */
  textIds(text: string): Promise<number[]>;
}

/**
 * The chat template of a folder: chat_template.jinja, else `chat_template` in tokenizer_config.json.
 * A folder without template or tokenizer opens too; what needs them is then a ModelError.
 */
export async function loadChat(dir: string, tokenizer: Tokenizer | null): Promise<Chat> {
  const config = (await readJsonIfAny(join(dir, "tokenizer_config.json"))) ?? {};
  const bos = specialToken(config, "bos_token");
  const source = await templateOf(dir, config);
  const template = source && compile(source);

  const renderPrompt = (messages: readonly Message[]): string => {
    if (!template) {
      throw new ModelError(dir, 'no chat template (chat_template.jinja, or "chat_template" in tokenizer_config.json)');
    }
    try {
      const tokens = { bos_token: bos ?? "", eos_token: specialToken(config, "eos_token") ?? "" };
      return template.render({ ...tokens, messages: [...messages], add_generation_prompt: true });
    } catch (error) {
      const reason = (error as Error).message;
      throw new ModelError(source.path, `the chat template refuses these messages: ${reason}`, { cause: error });
    }
  };
  const textIds = async (text: string): Promise<number[]> => {
    if (!tokenizer)
      throw new ModelError(join(dir, "tokenizer.json"), "no such file, needed to turn text into token ids");
    return withOneBos(await tokenizer.encode(text), bos === null ? null : tokenizer.idOf(bos));
  };
  return {
    hasTemplate: template !== null,
    renderPrompt,
    textIds,
    promptIds: (messages) => textIds(renderPrompt(messages)),
  };
}

/** `ids` with exactly one `bos` in front; as they are where the model has none. */
export function withOneBos(ids: readonly number[], bos: number | null): number[] {
  if (bos === null) return [...ids];
  const first = ids.findIndex((id) => id !== bos);
  return [bos, ...(first < 0 ? [] : ids.slice(first))];
}

interface TemplateSource {
  readonly path: string;
  readonly text: string;
}

async function templateOf(dir: string, config: JsonObject): Promise<TemplateSource | null> {
  const file = join(dir, "chat_template.jinja");
  const text = await readTextIfAny(file);
  if (text !== null) return { path: file, text };

  const path = join(dir, "tokenizer_config.json");
  const value = config.chat_template ?? null;
  if (value === null) return null;
  const named = Array.isArray(value) ? value.find((entry) => entry?.name === "default")?.template : value;
  if (typeof named === "string") return { path, text: named };
  throw new ModelError(
    path,
    `"chat_template" is ${JSON.stringify(value).slice(0, 60)}, expected a template or a list of {name, template} with the name "default"`,
  );
}

function compile({ path, text }: TemplateSource): Template {
  try {
    return new Template(text);
  } catch (error) {
    throw new ModelError(path, `the chat template does not parse: ${(error as Error).message}`, { cause: error });
  }
}

/** A special token of tokenizer_config.json: a string, or an object that holds it as `content`. */
function specialToken(config: JsonObject, key: string): string | null {
  const value = config[key];
  const content = typeof value === "object" && value !== null ? (value as JsonObject).content : value;
  return typeof content === "string" ? content : null;
}
