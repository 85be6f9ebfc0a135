/** `heddle serve` with the stub in place of a model: node serve-stub.js MODEL PORT */

import { Command } from "@commander-js/extra-typings";
import { compiledModule } from "../../config/paths.js";
import { runProgram } from "../../pipelines/exit.js";
import { serveModel } from "../../pipelines/serve-model.js";

const [model, port] = process.argv.slice(2);
const program = new Command().action(async () => {
  const options = { model: model!, host: "127.0.0.1", port: Number(port), maxLogprobs: -1, maxBatchTokens: 256 };
  await serveModel({ ...options, fixedShapes: false }, compiledModule("test/pipelines/score-stub.js"));
});
process.exitCode = await runProgram(program, []);
