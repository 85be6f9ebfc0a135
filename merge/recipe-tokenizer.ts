// The tokenizer of a recipe: tokenizer_source, a word, or tokenizer, a mapping.
import { describe, type KeyPath } from "../config/yaml-source.js";
import type { TokenizerSettings, TokenSettings } from "./recipe.js";
import { checkKeys, isMapping, type Mapping, type Note } from "./recipe-notes.js";

const SOURCES = "union, base or a model folder";

export function checkTokenizer({ tokenizer, tokenizer_source }: Mapping, note: Note): TokenizerSettings | null {
  if (tokenizer !== undefined && tokenizer_source !== undefined) {
    note(["tokenizer"], "expected either tokenizer or tokenizer_source, got both");
    return null;
  }
  if (tokenizer_source !== undefined) {
    const source = checkSource(tokenizer_source, ["tokenizer_source"], note);
    return { source, tokens: {}, padToMultipleOf: null };
  }
  if (tokenizer === undefined || tokenizer === null) return null;
  if (!isMapping(tokenizer)) {
    note(["tokenizer"], `expected a mapping with source, got ${describe(tokenizer)}`);
    return null;
  }
  checkKeys(tokenizer, ["source", "tokens", "pad_to_multiple_of"], note, ["tokenizer"]);
  const { source = "union", tokens = {}, pad_to_multiple_of: pad = null } = tokenizer;
  if (pad !== null && !(Number.isInteger(pad) && (pad as number) > 0)) {
    note(["tokenizer", "pad_to_multiple_of"], `expected a whole number, 1 or more, got ${describe(pad)}`);
  }
  return {
    source: checkSource(source, ["tokenizer", "source"], note),
    tokens: checkTokens(tokens, note),
    padToMultipleOf: pad as number | null,
  };
}

function checkSource(value: unknown, path: KeyPath, note: Note): string {
  if (typeof value !== "string" || value === "") {
    note(path, `expected ${SOURCES}, got ${describe(value)}`);
    return "";
  }
  return value;
}

function checkTokens(tokens: unknown, note: Note): Record<string, TokenSettings> {
  if (!isMapping(tokens)) {
    note(["tokenizer", "tokens"], `expected a mapping from tokens to where they come from, got ${describe(tokens)}`);
    return {};
  }
  const entries = Object.entries(tokens).map(([token, value]): [string, TokenSettings] => {
    const at = ["tokenizer", "tokens", token];
    if (!isMapping(value)) {
      note(at, `expected a mapping with source or force, got ${describe(value)}`);
      return [token, { source: null, force: false }];
    }
    checkKeys(value, ["source", "force"], note, at);
    const { source = null, force = false } = value;
    if (typeof force !== "boolean") note([...at, "force"], `expected true or false, got ${describe(force)}`);
    return [token, { source: checkTokenSource(source, [...at, "source"], note), force: force === true }];
  });
  return Object.fromEntries(entries);
}

function checkTokenSource(value: unknown, at: KeyPath, note: Note): TokenSettings["source"] {
  if (value === null) return null;
  if (typeof value === "string") return { kind: "model", model: value };
  if (!isMapping(value)) {
    note(at, `expected a model, or a mapping with kind, got ${describe(value)}`);
    return null;
  }
  const { kind, model, token, token_id: tokenId } = value;
  if (kind !== "zero" && kind !== "model_token") {
    note([...at, "kind"], `expected zero or model_token, got ${describe(kind)}`);
    return null;
  }
  checkKeys(value, kind === "zero" ? ["kind"] : ["kind", "model", "token", "token_id"], note, at);
  if (kind === "zero") return { kind };
  if (typeof model !== "string") note([...at, "model"], `expected a model of the recipe, got ${describe(model)}`);
  if (token !== undefined && typeof token !== "string") {
    note([...at, "token"], `expected the text of a token, got ${describe(token)}`);
  }
  if (tokenId !== undefined && !(Number.isInteger(tokenId) && (tokenId as number) >= 0)) {
    note([...at, "token_id"], `expected the number of a token, 0 or more, got ${describe(tokenId)}`);
  }
  if ((token === undefined) === (tokenId === undefined)) {
    note(at, `expected either token or token_id, got ${token === undefined ? "neither" : "both"}`);
  }
  return {
    kind,
    model: String(model),
    token: (token as string | undefined) ?? null,
    tokenId: (tokenId as number | undefined) ?? null,
  };
}
