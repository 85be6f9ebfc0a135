// Nested arguments and results: arrays and plain objects of leaves.

const isPlainObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && [Object.prototype, null].includes(Object.getPrototypeOf(value));

/** The same structure with every leaf replaced; a leaf is whatever is no array and no plain object. */
export function mapTree(tree: unknown, replace: (leaf: unknown, path: string) => unknown, path = ""): unknown {
  if (Array.isArray(tree)) return tree.map((item, i) => mapTree(item, replace, `${path}[${i}]`));
  if (!isPlainObject(tree)) return replace(tree, path);
  return Object.fromEntries(
    Object.entries(tree).map(([key, item]) => [key, mapTree(item, replace, path === "" ? key : `${path}.${key}`)]),
  );
}

/** The leaves in order. */
export function leavesOf(tree: unknown): { leaf: unknown; path: string }[] {
  const leaves: { leaf: unknown; path: string }[] = [];
  mapTree(tree, (leaf, path) => leaves.push({ leaf, path }));
  return leaves;
}
