import fc from "fast-check";
import { expect, test } from "vitest";
import { ENDED, START, stopTexts } from "../../student/stop-texts.js";

/** How many tokens, each a text, there are up to and with the one that completes a stop text; all where none does. */
function countRead(stop: readonly string[], tokens: readonly string[]): number {
  const encoder = new TextEncoder();
  const { row_V, next_K } = stopTexts(stop, (id) => encoder.encode(tokens[id]), tokens.length);
  expect(Math.log2(next_K.length) % 1).toBe(0);
  let state = START;
  for (let id = 0; id < tokens.length; id++) {
    state = next_K[row_V[id]! + state]!;
    if (state === ENDED) return id + 1;
  }
  return tokens.length;
}

test("a text is found where the tokens so far hold it, whatever it overlaps with", () => {
  const few = (options: { minLength: number; maxLength: number }) =>
    fc.string({ unit: fc.constantFrom("a", "b", "\u00e9"), ...options });
  fc.assert(
    fc.property(
      fc.array(few({ minLength: 1, maxLength: 5 }), { minLength: 1, maxLength: 3 }),
      fc.array(few({ minLength: 0, maxLength: 3 }), { minLength: 1, maxLength: 12 }),
      (stop, tokens) => {
        const first = tokens.findIndex((_, i) => {
          const text = tokens.slice(0, i + 1).join("");
          return stop.some((one) => text.includes(one));
        });
        expect(countRead(stop, tokens)).toBe(first < 0 ? tokens.length : first + 1);
      },
    ),
    { numRuns: 2000, seed: 1 },
  );
});

test("once it is there it stays there, and tokens that act alike share their transitions", () => {
  const tokens = ["ab", "x", "y", "z"];
  const { row_V, next_K } = stopTexts(["ab"], (id) => new TextEncoder().encode(tokens[id]), 4);
  // States: START, ENDED, after "a". "ab" leads to ENDED from each; the other tokens lead back to START.
  expect([...row_V]).toEqual([0, 3, 3, 3]);
  expect([...next_K]).toEqual([ENDED, ENDED, ENDED, START, ENDED, START, 0, 0]);
});
