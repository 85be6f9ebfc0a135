// README.md of a model folder, as the Hugging Face Hub reads it: YAML in front, then markdown.
import { basename, resolve } from "node:path";
import { stringify } from "yaml";
import { hubName } from "../hub/name.js";
import { METHODS, type MethodName } from "./methods.js";

export interface ModelCard {
  /** What loads it: of adapters PEFT. */
  readonly library: "transformers" | "peft";
  readonly title: string;
  /** A paragraph on what this is and how it came about. */
  readonly summary: string;
  /** The models that it was made of, as the recipe calls them. */
  readonly models: readonly string[];
  /** Models that the Hub should link to, by their names there: OWNER/NAME. A folder may look like one, so none is guessed. */
  readonly baseModels: readonly string[];
  readonly tags: readonly string[];
  /** What was done, with what it is and its paper (`description` of a Method). */
  readonly methods: readonly { readonly name: string; readonly description: string }[];
  /** Files that it learned from. */
  readonly data: readonly string[];
  /** Numbers, each with what it is. */
  readonly measured: readonly string[];
  /** The recipe or config that made it, in YAML; null where there is none. */
  readonly recipe: string | null;
}

/** The text of the card. */
export function modelCard(card: ModelCard): string {
  const { library, title, summary, models, baseModels, tags, methods, data, measured, recipe } = card;
  const base = baseModels.length > 0 ? { base_model: baseModels } : {};
  const front = stringify({ library_name: library, tags, ...base }, { lineWidth: 0, compat: "yaml-1.1" });
  const sections = [
    `---\n${front}---`,
    `# ${title}`,
    summary,
    ...section("Methods", list(methods.map(({ name, description }) => `\`${name}\`: ${description}`))),
    ...section("Models", list(models.map((model) => (baseModels.includes(model) ? link(model) : `\`${model}\``)))),
    ...section("Data", list(data.map((file) => `\`${file}\``))),
    ...section("Measured", list(measured)),
    ...section("Recipe", recipe === null ? "" : fenced(recipe)),
  ];
  return `${sections.join("\n\n")}\n`;
}

/** The card of a merge into `out`, by a recipe (null where it has none that could be told). */
export function mergeCard(
  out: string,
  models: readonly string[],
  methods: readonly MethodName[],
  recipe: string | null,
): string {
  const named = models.map((model) => hubName(model) ?? model);
  return modelCard({
    library: "transformers",
    title: basename(resolve(out)),
    summary: recipe === null ? "Merged by heddle." : "Merged by heddle, by the recipe below.",
    models: named,
    baseModels: named.filter((_, i) => hubName(models[i]!) !== null),
    tags: ["merge", "heddle"],
    methods: methods.map((name) => ({ name, description: METHODS[name].description })),
    data: [],
    measured: [],
    recipe,
  });
}

/** The text of a recipe with what was set beside it, as comments. */
export function recipeAsRun(text: string, set: readonly string[], seed: number): string {
  const options = [...set.map((setting) => `--set ${setting}`), ...(seed === 0 ? [] : [`--seed ${seed}`])];
  return [text.trimEnd(), ...options.map((option) => `# with ${option.replaceAll("\n", "\n# ")}`)].join("\n");
}

const link = (model: string): string => `[${model}](https://huggingface.co/${model})`;

const list = (items: readonly string[]): string => items.map((item) => `- ${item}`).join("\n");

const section = (title: string, text: string): string[] => (text === "" ? [] : [`## ${title}`, text]);

/** A code block whose fence is longer than any within. */
function fenced(yaml: string): string {
  const longest = Math.max(2, ...(yaml.match(/`+/g) ?? []).map(({ length }) => length));
  const fence = "`".repeat(longest + 1);
  return `${fence}yaml\n${yaml.trimEnd()}\n${fence}`;
}
