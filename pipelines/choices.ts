/** How a row's choices fared: the measures of lm-evaluation-harness. */

/** As fields of a line of JSON. */
export type Judged = {
  /** ln p of each choice after the prompt, in nats. */
  loglikelihoods: number[];
  /** The likeliest choice, by its index. */
  choice: number;
  /** The likeliest by character, and by byte of UTF-8. */
  choice_norm: number;
  choice_bytes: number;
  /** 1 where that choice is the answer, else 0. */
  acc: 0 | 1;
  acc_norm: 0 | 1;
  acc_bytes: 0 | 1;
};

/**
 * `answer` is one of the choices or its index. The length of a choice is that of its text without blanks before it: the
 * harness puts the blank between question and choice, where it counts for neither.
 */
export function judge(choices: readonly string[], answer: string | number, loglikelihoods: number[]): Judged {
  const right = typeof answer === "number" ? answer : choices.indexOf(answer);
  const likeliest = (lengthOf: (choice: string) => number) => {
    const each = loglikelihoods.map((nats, i) => nats / Math.max(1, lengthOf(choices[i]!.trimStart())));
    return each.indexOf(Math.max(...each));
  };
  const choice = likeliest(() => 1);
  const choice_norm = likeliest((text) => [...text].length);
  const choice_bytes = likeliest((text) => Buffer.byteLength(text));
  const isRight = (index: number) => (index === right ? 1 : 0);
  return {
    loglikelihoods,
    choice,
    choice_norm,
    choice_bytes,
    acc: isRight(choice),
    acc_norm: isRight(choice_norm),
    acc_bytes: isRight(choice_bytes),
  };
}
