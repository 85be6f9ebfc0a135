// The chat template of a merged model: that of most of its models, a well-known one, or one that the recipe spells out.

/** Names that recipes use for well-known formats. */
export const CHAT_TEMPLATES = ["alpaca", "chatml", "llama3", "mistral", "exaone"] as const;

/**
 * The files that give a folder a chat template, by name: chat_template.jinja, and tokenizer_config.json where that holds a
 * template now. Empty where `setting` is "auto" and no model has one.
 * @param setting "auto", a name, or jinja text
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
  throw new Error(`not yet: ${setting} ${models.length} ${from} ${Object.keys(files).length}`);
}
