// The chat template of a merged model: that of most of its models, a well-known one, or one that the recipe spells out.
import { join } from "node:path";
import { Template } from "@huggingface/jinja";
import { type JsonObject, readJsonIfAny, readTextIfAny } from "../model/json.js";
import { withKey } from "./json-text.js";
import { RecipeError } from "./recipe.js";

const FILE = "chat_template.jinja";
const CONFIG = "tokenizer_config.json";

const PREAMBLE =
  "Below is an instruction that describes a task. Write a response that appropriately completes the request.";

/**
 * Well-known formats by the names that recipes use: Stanford Alpaca's prompt, OpenAI's ChatML, Llama 3's and Mistral 7B's
 * (v0.1) as their model cards give them, and EXAONE 3's.
 */
export const CHAT_TEMPLATES: Readonly<Record<string, string>> = {
  alpaca: String.raw`{{ bos_token }}{% if messages[0].role != 'system' %}{{ '${PREAMBLE}\n\n' }}{% endif %}
{%- for message in messages %}
  {%- if message.role == 'user' %}{{ '### Instruction:\n' + message.content + '\n\n' }}
  {%- elif message.role == 'assistant' %}{{ '### Response:\n' + message.content + eos_token + '\n\n' }}
  {%- else %}{{ message.content + '\n\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}`,
  chatml: String.raw`{% for message in messages %}
  {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}`,
  llama3: String.raw`{{ bos_token }}{% for message in messages %}
  {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}`,
  mistral: String.raw`{{ bos_token }}{% if messages[0].role == 'system' %}
  {%- set preface = messages[0].content + '\n\n' %}{% set turns = messages[1:] %}
{%- else %}{% set preface = '' %}{% set turns = messages %}{% endif %}
{%- for message in turns %}
  {%- if message.role != ('user' if loop.index0 % 2 == 0 else 'assistant') %}
    {{- raise_exception('roles must alternate: user, assistant, user, ...') }}
  {%- endif %}
  {%- if message.role == 'assistant' %}{{ ' ' + message.content + eos_token }}
  {%- else %}{{ '[INST] ' + (preface if loop.first else '') + message.content + ' [/INST]' }}{% endif %}
{%- endfor %}`,
  exaone: String.raw`{% if messages[0].role != 'system' %}{{ '[|system|][|endofturn|]\n' }}{% endif %}
{%- for message in messages %}
  {{- '[|' + message.role + '|]' + message.content + ('' if message.role == 'user' else '[|endofturn|]') + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '[|assistant|]' }}{% endif %}`,
};

/**
 * The files that give a folder a chat template, by name: chat_template.jinja, or tokenizer_config.json where a template is
 * only there now. Empty where `setting` is "auto" and no model has a template.
 * @param setting "auto" (that of most models, of the first of them where several are as common), a name, or jinja text
 * @param models folders of the models, in the recipe's order
 * @param from folder whose tokenizer files the result has
 * @param files texts that take the place of files of `from`
 */
export async function chatTemplateFiles(
  setting: string,
  models: readonly string[],
  from: string,
  files: Readonly<Record<string, string>> = {},
): Promise<Record<string, string>> {
  const template = setting === "auto" ? await commonest(models) : named(setting);
  if (template === null) return {};
  const text = files[CONFIG] ?? (await readTextIfAny(join(from, CONFIG)));
  const config = text === null ? null : (JSON.parse(text) as JsonObject);
  const isInConfig = (config?.chat_template ?? null) !== null;
  const isInFile = (await readTextIfAny(join(from, FILE))) !== null;
  return {
    ...(isInConfig ? { [CONFIG]: withKey(text!, "chat_template", template) } : {}),
    ...(isInFile || !isInConfig ? { [FILE]: template } : {}),
  };
}

function named(setting: string): string {
  if (Object.hasOwn(CHAT_TEMPLATES, setting)) return CHAT_TEMPLATES[setting]!;
  if (!setting.includes("{")) {
    const names = Object.keys(CHAT_TEMPLATES).join(", ");
    throw new RecipeError(`chat_template: expected auto, ${names} or a template in jinja, got "${setting}"`);
  }
  try {
    new Template(setting);
  } catch (error) {
    throw new RecipeError(`chat_template: does not parse: ${(error as Error).message}`, { cause: error });
  }
  return setting;
}

async function commonest(models: readonly string[]): Promise<string | null> {
  const templates: string[] = [];
  for (const dir of models) {
    const template = await templateOf(dir);
    if (template !== null) templates.push(template);
  }
  const count = (template: string) => templates.filter((other) => other.trim() === template.trim()).length;
  const most = Math.max(...templates.map(count));
  return templates.find((template) => count(template) === most) ?? null;
}

/** As transformers finds it. Of several templates with names it is the one called "default". */
async function templateOf(dir: string): Promise<string | null> {
  const text = await readTextIfAny(join(dir, FILE));
  if (text !== null) return text;
  const value = (await readJsonIfAny(join(dir, CONFIG)))?.chat_template;
  const found = Array.isArray(value) ? (value as JsonObject[]).find(({ name }) => name === "default")?.template : value;
  return typeof found === "string" && found !== "" ? found : null;
}
