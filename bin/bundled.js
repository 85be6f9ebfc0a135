// Loads dist/bundle/: CommonJS, since V8 then takes the code that it made when the bundle was built (keep-code.js) and has
// nothing to compile. Node's module.enableCompileCache does the same, from Node 22 on.
import { readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Script } from "node:vm";

const folder = fileURLToPath(new URL("../dist/bundle/", import.meta.url));
const requirePackage = createRequire(import.meta.url);
const importPackage = (id) => import(id);

/** Files that are loaded, by name. */
const loaded = new Map();

/** What a file of the bundle exports. */
export function load(name) {
  const known = loaded.get(name);
  if (known) return known.module.exports;
  const filename = join(folder, name);
  const names = "exports, require, module, __filename, __dirname, importPackage";
  const script = new Script(`(function (${names}) {${readFileSync(filename)}\n})`, {
    filename,
    cachedData: keptCode(filename),
  });
  const module = { exports: {} };
  loaded.set(name, { script, module });
  const require = (id) => (id.startsWith("./") ? load(id.slice(2)) : requirePackage(id));
  script.runInThisContext()(module.exports, require, module, filename, dirname(filename), importPackage);
  return module.exports;
}

/**
 * The code of a file of the bundle as it is kept, if that was made after the file: V8 compares only their lengths. It
 * compiles the file where the code is of another version of V8.
 */
function keptCode(filename) {
  try {
    const [code, source] = [codePath(filename), filename].map((path) => statSync(path).mtimeMs);
    return code >= source ? readFileSync(codePath(filename)) : undefined;
  } catch {
    return undefined;
  }
}

export const codePath = (filename) => `${filename}.code`;

/** The scripts of all files that are loaded, with their paths. */
export const scripts = () => [...loaded].map(([name, { script }]) => [join(folder, name), script]);
