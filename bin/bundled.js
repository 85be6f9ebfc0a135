// Loads dist/bundle/ with nothing to compile: Node keeps V8's code of what it has loaded before, since Node 22. In Node 20 that is
// done here, with the code that was made when the bundle was built (keep-code.js); it takes the bundle to be CommonJS.
import { readFileSync } from "node:fs";
import module, { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Script } from "node:vm";

const folder = fileURLToPath(new URL("../dist/bundle/", import.meta.url));
const requirePackage = createRequire(import.meta.url);

/** Files that are loaded, by name. */
const loaded = new Map();

/** What a file of the bundle exports. */
export function load(name) {
  if (module.enableCompileCache === undefined) return loadKept(name);
  module.enableCompileCache();
  return requirePackage(join(folder, name));
}

function loadKept(name) {
  const known = loaded.get(name);
  if (known) return known.own.exports;
  const filename = join(folder, name);
  // A script of kept code knows no import().
  const text = readFileSync(filename, "utf8").replaceAll(/\bimport\(/g, "importPackage(");
  const script = new Script(`(function (exports, require, module, __filename, __dirname, importPackage) {${text}\n})`, {
    filename,
    cachedData: keptCode(filename),
  });
  const own = { exports: {} };
  loaded.set(name, { script, own });
  const require = (id) => (id.startsWith("./") ? loadKept(id.slice(2)) : requirePackage(id));
  script.runInThisContext()(own.exports, require, own, filename, dirname(filename), (id) => import(id));
  return own.exports;
}

/** The code of a file of the bundle as it is kept; V8 does not take that of another version of it. */
function keptCode(filename) {
  try {
    return readFileSync(codePath(filename));
  } catch {
    return undefined;
  }
}

export const codePath = (filename) => `${filename}.code`;

/** The scripts of all files that are loaded, with their paths; none where Node keeps the code. */
export const scripts = () => [...loaded].map(([name, { script }]) => [join(folder, name), script]);
