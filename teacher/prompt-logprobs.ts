/**
 * vLLM's `prompt_logprobs` on the wire: one entry a prompt token, null or { token id: { logprob, rank } }.
 * An entry has k tokens, or k + 1 when the actual token is not among the k likeliest.
 * heddle's server adds `prompt_logprobs_tail`: per token null or ln of the mass outside the k.
 */

import type { ScoreRequest, TokenScores } from "./teacher.js";

/** JSON has no infinity: vLLM writes probability zero as this. */
export const ZERO_LOGPROB = -9999;

/** Rounding can push the k probabilities past 1; ln of their sum is kept below this, as TRL does. */
const MAX_LOG_SUM = -1e-7;

type WireToken = { logprob?: number | null; rank?: number | null };

/** One element of `choices`, as far as scoring reads it. */
export type WireChoice = {
  index: number;
  prompt_logprobs?: (Record<string, WireToken> | null)[] | null;
  prompt_logprobs_tail?: (number | null)[] | null;
};

/**
 * Reads the scores of one request. `vocabSize` null: unknown, so k counts as less than the vocabulary.
 * Throws when a position, the actual token or a number is missing: a gap must not become a training target.
 */
export function readPromptLogprobs(
  choice: WireChoice,
  request: ScoreRequest,
  k: number,
  vocabSize: number | null,
): TokenScores {
  const { ids, from } = request;
  const rows = choice.prompt_logprobs;
  if (!rows) throw new Error(`the answer has no prompt_logprobs; is this server able to score prompts?`);
  if (rows.length !== ids.length) {
    throw new Error(`prompt_logprobs has ${rows.length} positions for a prompt of ${ids.length} tokens`);
  }
  const n = ids.length - from;
  const scores: TokenScores = {
    k,
    ids: new Int32Array(n * k),
    logprobs: new Float32Array(n * k),
    actual: new Float32Array(n),
    tail: new Float32Array(n),
  };
  for (let i = 0; i < n; i++) {
    const position = from + i;
    const actualId = ids[position]!;
    const { actual, likeliest } = readRow(rows[position] ?? {}, position, actualId, k);
    scores.actual[i] = actual;
    likeliest.forEach((token, column) => {
      scores.ids[i * k + column] = token.id;
      scores.logprobs[i * k + column] = token.logprob;
    });
    const tail = choice.prompt_logprobs_tail?.[position];
    scores.tail[i] =
      k === vocabSize ? -Infinity : typeof tail === "number" ? fromWire(tail) : tailOf(likeliest.map((t) => t.logprob));
  }
  return scores;
}

type Token = { id: number; logprob: number; rank: number };

/** Sorts one position's tokens and takes the actual one out when it is the extra one. */
function readRow(row: Record<string, WireToken>, position: number, actualId: number, k: number) {
  const tokens = Object.entries(row).map(([id, token]): Token => {
    const logprob = token.logprob;
    if (typeof logprob !== "number") {
      throw new Error(
        `token ${id} at position ${position} has logprob ${logprob}: the teacher's logits are not finite`,
      );
    }
    return { id: Number(id), logprob: Math.max(logprob, ZERO_LOGPROB), rank: token.rank ?? Infinity };
  });
  const actual = tokens.find((token) => token.id === actualId);
  if (!actual) throw new Error(`position ${position} has no logprob for its own token ${actualId}`);
  const likeliest = tokens.length === k + 1 ? tokens.filter((token) => token !== actual) : tokens;
  if (likeliest.length !== k) {
    throw new Error(`position ${position} has ${tokens.length} tokens, prompt_logprobs ${k} needs ${k} or ${k + 1}`);
  }
  likeliest.sort((a, b) => b.logprob - a.logprob || compareRanks(a.rank, b.rank) || a.id - b.id);
  return { actual: actual.logprob, likeliest };
}

const compareRanks = (a: number, b: number) => (a === b ? 0 : a - b);

const fromWire = (logprob: number) => (logprob <= ZERO_LOGPROB ? -Infinity : logprob);

/** ln(1 - sum of exp(logprobs)), the mass that the listed tokens leave. */
export function tailOf(logprobs: readonly number[]): number {
  let mass = 0;
  for (const logprob of logprobs) mass += Math.exp(logprob);
  return Math.log(-Math.expm1(Math.min(Math.log(mass), MAX_LOG_SUM)));
}

/**
 * The two arrays as JSON text in pieces of one position each, so that an answer of any size is never one string.
 * The actual token comes first, as in vLLM: clients read it there. Positions before `from` are null.
 */
export function* writePromptLogprobs(scores: TokenScores, request: ScoreRequest): Generator<string> {
  const { ids, from } = request;
  yield `"prompt_logprobs":[${"null,".repeat(from).slice(0, -1)}`;
  for (let position = from; position < ids.length; position++) {
    yield `,${rowText(scores, position - from, ids[position]!)}`;
  }
  const tails = Array.from(scores.tail, (tail) => numberText(tail));
  yield `],"prompt_logprobs_tail":[${[...Array<string>(from).fill("null"), ...tails].join(",")}]`;
}

function rowText(scores: TokenScores, i: number, actualId: number): string {
  const { k } = scores;
  // A rank past the k would need a count over the vocabulary: k + 1 sorts where it belongs.
  const texts = [tokenText(actualId, scores.actual[i]!, k + 1)];
  for (let column = 0; column < k; column++) {
    const id = scores.ids[i * k + column]!;
    const text = tokenText(id, scores.logprobs[i * k + column]!, column + 1);
    if (id === actualId) texts[0] = text;
    else texts.push(text);
  }
  return `{${texts.join(",")}}`;
}

const tokenText = (id: number, logprob: number, rank: number) =>
  `"${id}":{"logprob":${numberText(logprob)},"rank":${rank}}`;

/**
 * Nine digits tell a float32 exactly, in half the time and space of a double's. NaN becomes null, which a reader refuses;
 * everything below -9999 becomes -9999.
 */
const numberText = (value: number) => (Number.isNaN(value) ? "null" : Math.max(value, ZERO_LOGPROB).toPrecision(9));
