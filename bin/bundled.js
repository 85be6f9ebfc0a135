// Loads dist/bundle/: CommonJS, since V8 then takes the code that it made when the bundle was built (keep-code.mjs) and has
// nothing to compile. Node's module.enableCompileCache does the same, from Node 22 on.
const { readFileSync, statSync } = require("node:fs");
const { dirname, join } = require("node:path");
const { Script } = require("node:vm");

const folder = join(__dirname, "../dist/bundle/");
const requirePackage = require;
const importPackage = (id) => import(id);

/** Files that are loaded, by name. */
const loaded = new Map();

/** What a file of the bundle exports. */
function load(name) {
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

const codePath = (filename) => `${filename}.code`;

/** The scripts of all files that are loaded, with their paths. */
const scripts = () => [...loaded].map(([name, { script }]) => [join(folder, name), script]);

module.exports = { codePath, load, scripts };
