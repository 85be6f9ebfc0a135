/** Where this package is: processes and threads are started from dist/, also when this file runs as TypeScript in a test. */

const isSource = import.meta.url.endsWith(".ts");

/** The folder that holds package.json. */
export const packageRoot = new URL(isSource ? "../" : "../../", import.meta.url);

/** A compiled module, by its path below dist/: "pipelines/child.js". */
export const compiledModule = (path: string): URL => new URL(`dist/${path}`, packageRoot);
