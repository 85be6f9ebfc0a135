/** What `score`, `generate` and `eval` say of the rows they read, and the flag that concerns them. */
import { Option } from "@commander-js/extra-typings";

export const systemOption = new Option("--system <policy>", "what a system message leads to: fold puts its text first")
  .choices(["error", "fold", "drop"] as const)
  .default("error" as const);

/** Shown below the flags. */
export const rowsHelp = `
Rows, one JSON object a line:
  {"prompt": "1+1="}      one message of the user, rendered by the model's chat template
                          (a plain text where the model folder has no template)
  {"messages": [...]}     a conversation of {"role", "content"}
  {"ids": [2, 5, 9]}      token ids, used as they are: no <bos> is added`;
