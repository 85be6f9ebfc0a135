/** What a teacher is asked and what it answers, as plain data: in this process, over HTTP or from a cache. */

/** Prompt and completion as token ids. The tokens ids[from], ids[from + 1], ... are scored; 1 <= from <= ids.length. */
export type ScoreRequest = { ids: number[]; from: number };

/**
 * The teacher's distribution at n = ids.length - from positions, at temperature 1, the final soft cap applied.
 * Row i is ln p(. | ids[0 .. from + i - 1]), the distribution that token ids[from + i] was drawn from.
 */
export type TokenScores = {
  /** Columns per row; 0 asks for the actual tokens alone. */
  k: number;
  /** [n, k] token ids, likeliest first. */
  ids: Int32Array;
  /** [n, k] ln p of those tokens. Probability zero is -9999, as in vLLM: finite, so that p ln p stays 0. */
  logprobs: Float32Array;
  /** [n] ln p of the token that follows in the text, whether or not it is among the k. */
  actual: Float32Array;
  /** [n] ln of the mass outside the k; -Infinity when k is the whole vocabulary. */
  tail: Float32Array;
};

/** A teacher behind an address. Scores come back in the order of the requests. */
export interface RemoteTeacher {
  /** The server's own name for the model. */
  readonly modelName: string;
  /** Rows of the teacher's vocabulary, or null when neither the server nor the caller said. */
  readonly vocabSize: number | null;
  score(requests: readonly ScoreRequest[], k: number): Promise<TokenScores[]>;
  close(): Promise<void>;
}
