/**
 * Texts that end a completion, found as it is sampled: the automaton of Aho and Corasick (1975) over bytes of UTF-8, whose
 * steps are whole tokens. Where a completion stands in it is one integer, which the compiled loop carries along.
 */

/** Nothing of a text is there. */
export const START = 0;
/** One of the texts is there, or a stop token: it stays so. Other states are within a text. */
export const ENDED = 1;

/** Shape suffixes: V vocabulary, K transitions. */
export type StopTexts = {
  /** [V]: where the transitions of each token begin: tokens that act alike share them. */
  readonly row_V: Int32Array;
  /** [K]: the state after a token, for each state before it. As many as a power of two, since each K is a program. */
  readonly next_K: Int32Array;
};

/**
 * The automaton of one or more texts. `bytesOf` gives the bytes of a token of a vocabulary of `vocabSize`, none for what
 * decodes to nothing.
 */
export function stopTexts(texts: readonly string[], bytesOf: (id: number) => Uint8Array, vocabSize: number): StopTexts {
  const step = byteSteps(texts.map((text) => new TextEncoder().encode(text)));
  const states = step.length / 256;
  const rows = new Map<string, number>();
  const transitions: number[] = [];
  const row_V = Int32Array.from({ length: vocabSize }, (_, id) => {
    const bytes = bytesOf(id);
    const after = Array.from({ length: states }, (_, state) => {
      let at = state;
      for (const byte of bytes) at = step[at * 256 + byte]!;
      return at;
    });
    const key = after.join();
    const known = rows.get(key);
    if (known !== undefined) return known;
    const row = rows.size * states;
    rows.set(key, row);
    for (const state of after) transitions.push(state);
    return row;
  });
  const next_K = new Int32Array(2 ** Math.ceil(Math.log2(transitions.length)));
  next_K.set(transitions);
  return { row_V, next_K };
}

/** The state after each byte in each state: [states * 256]. */
function byteSteps(texts: readonly Uint8Array[]): Int32Array {
  /** Children by byte, of START, of ENDED (none), and of what has been read of the texts. */
  const nodes: Map<number, number>[] = [new Map(), new Map()];
  for (const text of texts) {
    let at = START;
    for (const [i, byte] of text.entries()) {
      const child = nodes[at]!.get(byte);
      if (i === text.length - 1) nodes[at]!.set(byte, ENDED);
      // What goes on behind another text is never come to.
      else if (child === ENDED) break;
      else if (child !== undefined) at = child;
      else {
        nodes[at]!.set(byte, nodes.length);
        at = nodes.length;
        nodes.push(new Map());
      }
    }
  }
  const step = new Int32Array(nodes.length * 256);
  step.fill(ENDED, ENDED * 256, (ENDED + 1) * 256);
  /** Of what has been read, in order of length, with the longest end of it that also begins a text. */
  const queue: { readonly node: number; readonly end: number }[] = [{ node: START, end: START }];
  for (const { node, end } of queue) {
    for (let byte = 0; byte < 256; byte++) {
      const elsewhere = node === START ? START : step[end * 256 + byte]!;
      const child = nodes[node]!.get(byte);
      const isEnd = child === ENDED || elsewhere === ENDED;
      step[node * 256 + byte] = isEnd ? ENDED : (child ?? elsewhere);
      if (child !== undefined && !isEnd) queue.push({ node: child, end: elsewhere });
    }
  }
  return step;
}
