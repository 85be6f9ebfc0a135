/** A YAML file with settings put over it, and the place of each key: FILE:LINE, or the --set it came from. */
import { type Document, isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseDocument, visit } from "yaml";

/** Keys and indices from the top of the file to a value: ["rl", "steps"]. */
export type KeyPath = readonly (string | number)[];

/** One thing wrong with the value at a path, in words: "expected X, got Y". */
export type Mistake = { path: KeyPath; problem: string };

export type YamlSource = {
  /** The whole, settings put over it, as plain data; a file without content is an empty mapping. */
  value: unknown;
  /** Why the file is no YAML, one line each; `value` is worthless then. */
  errors: string[];
  /** Keys given twice in a mapping. */
  duplicates: Mistake[];
  /** Each mistake as one line, "FILE:LINE: KEY: expected X, got Y", in the order of the file, settings last. */
  report(mistakes: readonly Mistake[]): string[];
  /** Settings that could not be put over the file, one line each. */
  badSettings: string[];
};

type Setting = { text: string; path: string[] };

/**
 * @param file the path to show in messages
 * @param settings texts of the form "rl.steps=50"; the value is YAML
 */
export function readYaml(file: string, text: string, settings: readonly string[]): YamlSource {
  const lines = new LineCounter();
  const lineAt: LineAt = (node) => lines.linePos(node.range?.[0] ?? 0).line;
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: false, prettyErrors: false });
  const errors = yamlErrors(document).map(({ offset, message }) => {
    return `${file}:${lines.linePos(offset).line}: expected YAML, got: ${message}`;
  });
  const duplicates: Mistake[] = [];
  const applied: Setting[] = [];
  const badSettings: string[] = [];
  if (errors.length === 0) {
    findDuplicates(document.contents, [], lineAt, duplicates);
    for (const setting of settings) {
      const problem = applySetting(document, setting, applied);
      if (problem !== undefined) badSettings.push(`--set ${setting}: ${problem}`);
    }
  }
  return {
    value: errors.length === 0 ? (document.toJS() ?? {}) : undefined,
    errors,
    duplicates,
    badSettings,
    report: (mistakes) =>
      mistakes
        .map(({ path, problem }) => ({ key: keyText(path), problem, place: locate(document, path, applied, lineAt) }))
        .sort((a, b) => orderOf(a.place) - orderOf(b.place))
        .map(({ key, problem, place }) => {
          const where = typeof place === "number" ? `${file}:${place}` : `--set ${place.text}`;
          const said = typeof place !== "number" && place.path.join(".") === key;
          return [where, ...(key === "" || said ? [] : [key]), problem].join(": ");
        }),
  };
}

/** Settings come after the last line. */
const orderOf = (place: number | Setting): number => (typeof place === "number" ? place : Number.MAX_SAFE_INTEGER);

/** Everything that keeps the text from having one meaning, with its place in the text. */
function yamlErrors(document: Document): { offset: number; message: string }[] {
  const found = [...document.errors, ...document.warnings].map(({ pos, message }) => ({ offset: pos[0], message }));
  visit(document, {
    Alias(_, node) {
      if (node.resolve(document) !== undefined) return;
      found.push({
        offset: node.range?.[0] ?? 0,
        message: `*${node.source}, but there is no &${node.source} before it`,
      });
    },
  });
  return found;
}

/** ["warp", 0, "eta"] is written warp[0].eta. */
function keyText(path: KeyPath): string {
  return path.map((key, i) => (typeof key === "number" ? `[${key}]` : i === 0 ? key : `.${key}`)).join("");
}

/** A value as an error message shows it. */
export function describe(value: unknown): string {
  if (value === undefined || value === null) return "nothing";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "a mapping";
  return typeof value === "string" ? JSON.stringify(value) : String(value);
}

/** Puts "rl.steps=50" into the document and notes it in `applied`, or says what is wrong with it. */
function applySetting(document: Document, setting: string, applied: Setting[]): string | undefined {
  const [, keys, value] = /^([^=\s]+)=(.*)$/s.exec(setting) ?? [];
  if (keys === undefined || value === undefined) return "expected KEY=VALUE, such as rl.steps=50";
  const parsed = parseDocument(value, { prettyErrors: false });
  const [wrong] = yamlErrors(parsed);
  if (wrong !== undefined) return `expected a YAML value after =, got: ${wrong.message}`;
  const path = keys.split(".");
  try {
    document.setIn(path, document.createNode(parsed.toJS()));
  } catch {
    return `expected a key in a section, but ${path.slice(0, -1).join(".") || "the file"} is none`;
  }
  applied.push({ text: setting, path });
  return undefined;
}

type LineAt = (node: { range?: readonly number[] | null }) => number;

function findDuplicates(node: unknown, path: KeyPath, lineAt: LineAt, found: Mistake[]): void {
  if (isSeq(node)) for (const [i, item] of node.items.entries()) findDuplicates(item, [...path, i], lineAt, found);
  if (!isMap(node)) return;
  const firstLine = new Map<string, number>();
  for (const { key, value } of node.items) {
    const name = keyName(key);
    const first = firstLine.get(name);
    if (first === undefined) firstLine.set(name, lineAt(key as Node));
    else
      found.push({ path: [...path, name], problem: `expected one value, got a second; the first is on line ${first}` });
    findDuplicates(value, [...path, name], lineAt, found);
  }
}

const keyName = (key: unknown): string => String(isScalar(key) ? key.value : key);

/** Where a path is: the setting that gave it, else the line of the key or of the closest key above it that is there. */
function locate(document: Document, path: KeyPath, settings: readonly Setting[], lineAt: LineAt): number | Setting {
  const setting = settings.findLast((setting) => setting.path.every((key, i) => key === path[i]));
  if (setting !== undefined) return setting;
  let node: unknown = document.contents;
  let line: number | undefined;
  for (const key of path) {
    if (isAlias(node)) node = node.resolve(document);
    // Of a key given twice the last one counts.
    const pair = isMap(node) ? node.items.findLast((pair) => keyName(pair.key) === String(key)) : undefined;
    const item = (isSeq(node) ? node.items[Number(key)] : pair?.key) as Node | undefined;
    if (item?.range == null) break;
    line = lineAt(item);
    node = pair === undefined ? item : pair.value;
  }
  // A section that only settings gave lacks a key: it is named by one of them.
  return line ?? settings.find((setting) => setting.path[0] === path[0]) ?? 1;
}
