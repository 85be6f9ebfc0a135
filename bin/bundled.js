// Loads dist/bundle/: CommonJS, since V8 then takes the code that it made when the bundle was built (keep-code.js) and has
// nothing to compile. Node's own module.enableCompileCache, which does the same, is not in Node 20.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { constants, Script } from "node:vm";

const folder = fileURLToPath(new URL("../dist/bundle/", import.meta.url));
const requirePackage = createRequire(import.meta.url);

/** Files that are loaded, by name. */
const loaded = new Map();

/** What a file of the bundle exports. */
export function load(name) {
  const known = loaded.get(name);
  if (known) return known.module.exports;
  const filename = join(folder, name);
  const script = new Script(
    `(function (exports, require, module, __filename, __dirname) {${readFileSync(filename)}\n})`,
    {
      filename,
      cachedData: keptCode(filename),
      importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER,
    },
  );
  const module = { exports: {} };
  loaded.set(name, { script, module });
  const require = (id) => (id.startsWith("./") ? load(id.slice(2)) : requirePackage(id));
  script.runInThisContext()(module.exports, require, module, filename, dirname(filename));
  return module.exports;
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

/** The scripts of all files that are loaded: [path, script]. */
export const scripts = () => [...loaded].map(([name, { script }]) => [join(folder, name), script]);
