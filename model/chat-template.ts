/** The chat template of a model folder: text of conversations. */
import { join } from "node:path";
import { Template } from "@huggingface/jinja";
import { ModelError } from "./errors.js";
import { type JsonObject, readTextIfAny } from "./json.js";

/** A piece of text of a message. */
export type TextPart = { readonly type: "text"; readonly text: string };

export type Message = {
  readonly role: string;
  /** A list of parts where the template takes one, as Gemma 3's does. */
  readonly content: string | readonly TextPart[];
};

export type ChatTemplate = {
  /** The file that holds it. */
  readonly path: string;
  /** The conversation as text; with `opensAnswer` up to where the model's next answer begins. */
  render(messages: readonly Message[], opensAnswer: boolean): string;
  readonly takesSystem: boolean;
};

/** What templates are given of tokenizer_config.json. */
export type TemplateTokens = { readonly bos_token: string; readonly eos_token: string };

/** chat_template.jinja, else `chat_template` in tokenizer_config.json; null where the folder has neither. */
export async function loadTemplate(
  dir: string,
  config: JsonObject,
  tokens: TemplateTokens,
): Promise<ChatTemplate | null> {
  const source = await templateOf(dir, config);
  if (source === null) return null;
  const { path } = source;
  const template = compile(source);

  const fill = (messages: readonly Message[], opensAnswer: boolean): string =>
    template.render({ ...tokens, messages: [...messages], add_generation_prompt: opensAnswer });
  const render = (messages: readonly Message[], opensAnswer: boolean): string => {
    if (!takesParts && messages.some(({ content }) => typeof content !== "string"))
      throw new ModelError(path, "the chat template takes texts, got a list of parts as the content of a message");
    try {
      return fill(messages, opensAnswer);
    } catch (error) {
      const reason = (error as Error).message;
      throw new ModelError(path, `the chat template refuses these messages: ${reason}`, { cause: error });
    }
  };
  const told = "heddle";
  /** Whether the template renders what the first of the messages says. */
  const keepsText = (messages: readonly Message[]): boolean => {
    try {
      return fill(messages, true).includes(told);
    } catch {
      return false;
    }
  };
  const user = { role: "user", content: "" };
  const takesParts = keepsText([{ ...user, content: [{ type: "text", text: told }] }]);
  return { path, render, takesSystem: keepsText([{ role: "system", content: told }, user]) };
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
