// README.md of a model folder, as the Hugging Face Hub reads it.

export interface ModelCard {
  readonly title: string;
  /** One sentence on what this is. */
  readonly summary: string;
  /** Hub names or paths of the models it was made of. */
  readonly baseModels: readonly string[];
  readonly tags: readonly string[];
  /** Lines of markdown, each an item of the list of methods. */
  readonly methods: readonly { readonly name: string; readonly description: string }[];
  /** The recipe or config in YAML that made it; null where there is none. */
  readonly recipe: string | null;
}

export function modelCard(card: ModelCard): string {
  return card.title;
}
