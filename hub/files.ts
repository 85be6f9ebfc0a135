/** Which files of a repository are a model, by name. Only those at its root: folders hold copies in other formats. */
import { INDEX_NAME, SINGLE_NAME } from "safetensors-ts";
import { ADAPTER_NAME } from "../model/adapter-config.js";
import { HubError } from "./errors.js";

/** Config, tokenizer, chat template, generation config, index of shards: what is small, and comes before the weights. */
export const isSmallModelFile = (name: string): boolean =>
  !name.includes("/") && (/\.(json|jinja|model)$/.test(name) || /^(merges|vocab)\.txt$/.test(name));

/** Names of the weights of a model, an adapter or both. `index` is the text of the index of shards, where there is one. */
export function weightFiles(repo: string, names: readonly string[], index: string | null): string[] {
  const there = new Set(names);
  const adapter = there.has(ADAPTER_NAME) ? [ADAPTER_NAME] : [];
  if (there.has(SINGLE_NAME)) return [SINGLE_NAME, ...adapter];
  const shards = index === null ? [] : shardsOf(repo, index);
  const lost = shards.find((shard) => !there.has(shard));
  if (lost !== undefined) throw new HubError(`${repo}: ${INDEX_NAME} names ${lost}, which is not there`);
  if (shards.length + adapter.length === 0) throw new HubError(`${repo}: ${noWeights(names)}`);
  return [...shards, ...adapter];
}

/** The files that an index of shards names, each once. */
export function shardsOf(where: string, index: string): string[] {
  try {
    const { weight_map: map } = JSON.parse(index) as { weight_map: Record<string, string> };
    return [...new Set(Object.values(map))].sort();
  } catch (error) {
    throw new HubError(`${where}: ${INDEX_NAME} is no index of shards`, undefined, { cause: error });
  }
}

/** What a repository has in the place of weights that can be used. */
function noWeights(names: readonly string[]): string {
  const expected = `expected ${SINGLE_NAME}, ${INDEX_NAME} or ${ADAPTER_NAME}`;
  const of = (pattern: RegExp) => names.filter((name) => pattern.test(name));
  for (const [others, advice] of [
    [of(/\.gguf$/), "download one for heddle convert, or pull the repository that they were made from"],
    [of(/\.(bin|pth|pt|ckpt|h5|msgpack)$/), "pull a repository or a revision in safetensors"],
  ] as const) {
    if (others.length === 0) continue;
    const shown = others.length > 3 ? [...others.slice(0, 3), `and ${others.length - 3} more`] : others;
    return `has its weights in ${shown.join(", ")} alone, ${expected}: ${advice}`;
  }
  return `has no weights, ${expected}`;
}

/** What a repository says to people. */
export const isDocument = (name: string): boolean => /^(README\.md|(LICEN[CS]E|NOTICE)(\..+)?)$/.test(name);

export const isConfig = (name: string): boolean => name === "config.json" || name === "adapter_config.json";
