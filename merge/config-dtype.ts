// config.json says what its weights are stored as; a merge may store them as something else.

/**
 * The text of a config.json with every `dtype` and `torch_dtype` set to `dtype` ("bfloat16" and so on), nested ones
 * included; `torch_dtype`, which every version of transformers reads, is added where there is none. All else stays as it
 * is written: JSON.parse and stringify would turn 8.0 into 8, which transformers 5 refuses for some keys.
 */
export function configWithDtype(text: string, dtype: string): string {
  const entries = /("(?:torch_)?dtype"\s*:\s*)(?:"\w*"|null)/g;
  if (text.search(entries) >= 0) return text.replace(entries, `$1"${dtype}"`);
  return text.replace(/^\s*\{(\s*)/, `{$1"torch_dtype": "${dtype}",$1`);
}
