/** `heddle score`: the log-probability of every token under a model. */
import { integer, outputFile } from "./flags.js";
import { dataOption, rowCommand, runOnRows, withResume } from "./row-command.js";

const help = withResume(`\
The row's "completion", or the assistant's last message, is scored after the prompt, with the token that ends it.
In the output logprobs[0] is null, and logprobs[i] is ln p(ids[i] | the ids before it).

Rows that are longer than the model's context are scored with --stride S: in windows of W tokens that begin S tokens
apart, each of which scores what no window before it did. A token then follows at least W - S others. No <bos> is put
before later windows, which Gemma misses: take windows as long as memory allows. A row within one window is scored whole.

--summary prints {"rows", "tokens", "mean_logprob", "perplexity", "bits_per_byte"}: nats per scored token, exp of minus
that, and bits over the UTF-8 bytes of the scored text without control tokens (null where a row is ids).

With a model for sequence classification, such as a reward model, a row gets "scores", one a label, in place of
"logprobs"; what it scores ends as the chat template ends it. --summary prints {"rows", "mean_scores"}.

Examples:
  heddle score --model gemma --data rows.jsonl --out scored.jsonl --summary
  heddle score --model gemma --ignore-chat-template --data book.jsonl --out scored.jsonl --window 1024 --stride 512 --summary`);

export const scoreCommand = rowCommand("score", help)
  .description("score every token of each row of a file")
  .addOption(dataOption("rows to score").makeOptionMandatory())
  .requiredOption("--out <file>", "JSONL to write: the row plus ids and logprobs; - for stdout", outputFile)
  .option("--window <tokens>", "tokens that are scored at once (default: the model's context)", integer(2))
  .option("--stride <tokens>", "how much further each window begins (default: half a window)", integer(1))
  .option("--summary", "print perplexity and bits per byte of all rows as one line of JSON", false)
  .action(async ({ summary, ...options }) => {
    const result = await runOnRows("score", options, summary ? "--summary" : null);
    if (summary) process.stdout.write(`${JSON.stringify(result)}\n`);
  });
