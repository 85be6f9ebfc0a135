/** `heddle chat`: its child in this process, and the command with lines on stdin. */
import { once } from "node:events";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, describe, expect, test, vi } from "vitest";
import { type ChatParams, open } from "../../pipelines/tasks/chat.js";
import { run as runGenerate } from "../../pipelines/tasks/generate.js";
import { copyOf } from "../model/folder.js";
import { fixture } from "../model/golden.js";
import { heddle, heddleReading, readJsonl, rowsFile, startReading, taskContext } from "./command.js";

const model = fixture("arithmetic/teacher");
const greedy: ChatParams = { model, system: null, maxNewTokens: 64, temperature: 0, topK: 0, topP: 1, seed: 0 };
const hot = { ...greedy, temperature: 50 };

/** A conversation, and what it has told since it was asked last. */
async function talk(params: ChatParams) {
  const context = taskContext();
  const answer = await open(params, context);
  const told = () => context.events.splice(0).flatMap((event) => (event.type === "text" ? [event.text] : []));
  return { answer, context, told, say: (text: string) => answer({ type: "say", text }) };
}

describe("an answer", () => {
  test("is what generate completes the conversation with, turn after turn, until it is reset", async () => {
    const { answer, say, told } = await talk(greedy);
    const conversation: { role: string; content: string }[] = [];
    for (const content of ["1+1=", "20+3=", "7*8="]) {
      conversation.push({ role: "user", content });
      const { data, out } = rowsFile([{ messages: conversation }]);
      // Op by op, which needs no compiling: each length of a prompt would be a program.
      vi.stubEnv("HEDDLE_JIT", "0");
      await runGenerate({ ...greedy, data, out, batchSize: 1, system: "error" }, taskContext());
      vi.unstubAllEnvs();
      const [{ completion }] = readJsonl<{ completion: string }>(out) as [{ completion: string }];
      expect(await say(content)).toBe("stop");
      expect(told().join("")).toBe(completion);
      conversation.push({ role: "assistant", content: completion });
    }
    await answer({ type: "reset" });
    await say("1+1=");
    expect(told().join("")).toBe("2");
  });

  test("comes piece by piece; asked to stop, it ends with what was said, and the conversation goes on", async () => {
    const { answer, context, say, told } = await talk(hot);
    let breaths = 0;
    context.breathe = async () => {
      breaths++;
      if (breaths === 2) await answer({ type: "stop" });
    };
    expect(await say("1+1=")).toBe("stopped");
    expect(breaths).toBe(2);
    expect(told().length).toBeLessThanOrEqual(3);
    expect(await say("1+1=")).not.toBe("stopped");
  });

  test("says where it was cut off; no room for one is an error", async () => {
    const { say } = await talk({ ...hot, maxNewTokens: 3 });
    expect(await say("1+1=")).toBe("length");
    const full = await talk({ ...hot, maxNewTokens: 500 });
    expect(await full.say("1+1=")).toBe("context");
    await expect(full.say("1+1=")).rejects.toThrow(
      expect.objectContaining({
        name: "UserError",
        message: expect.stringMatching(
          /^the conversation has \d+ tokens, and the model's context is 128: \/reset begins a new one$/,
        ),
      }),
    );
    await full.answer({ type: "reset" });
    expect(await full.say("1+1=")).toBe("context");
  });

  test("follows what --system says, put before the first message", async () => {
    const { say, told } = await talk({ ...greedy, system: "1+1=" });
    await say("2");
    const first = told().join("");
    const plain = await talk(greedy);
    await plain.say("1+1=\n\n2");
    expect(plain.told().join("")).toBe(first);
  });
});

describe("a model", () => {
  test("without a chat template or a tokenizer is refused", async () => {
    const dir = await copyOf("arithmetic/teacher");
    await rm(join(dir, "chat_template.jinja"));
    await expect(talk({ ...greedy, model: dir })).rejects.toThrow(
      `${dir}: no chat template (chat_template.jinja, or "chat_template" in tokenizer_config.json), needed for conversations: put the one of the instruction-tuned model there, or give prompts, which are then plain texts`,
    );
    const tiny = fixture("models/gemma2-tiny");
    await expect(talk({ ...greedy, model: tiny })).rejects.toThrow(`${tiny}: no tokenizer.json, needed to chat`);
  });
});

describe("the command", () => {
  const args = ["chat", "--model", model, "--temperature", "0"];

  test("answers the lines of stdin, and knows /reset and /exit", async () => {
    const lines = "1+1=\n\n/rest\n/reset\n 7*8= \n/exit\n1+1=\n";
    expect(await heddleReading(lines, ".", ...args)).toEqual({
      code: 0,
      stdout: "2\n56\n",
      stderr: "no such command: /rest (there are /reset and /exit)\n",
    });
  });

  /** What follows is said op by op, which needs no compiling. */
  const opByOp = () => void vi.stubEnv("HEDDLE_JIT", "0");
  afterEach(() => void vi.unstubAllEnvs());

  test("ends with a stdin that is closed", async () => {
    opByOp();
    expect(await heddle(".", ...args)).toEqual({ code: 0, stdout: "", stderr: "" });
  });

  test("says what was cut off on stderr; a message that does not fit ends it with 2", async () => {
    opByOp();
    const long = "1+".repeat(100);
    expect(await heddleReading(`7*8=\n${long}\n`, ".", ...args, "--max-new-tokens", "1")).toEqual({
      code: 2,
      stdout: "5\n",
      stderr:
        "(cut off at --max-new-tokens)\n" +
        "error: the conversation has 238 tokens, and the model's context is 128: /reset begins a new one\n",
    });
  });

  test.each([
    [["--top-p", "0"], "option '--top-p <p>' argument '0' is invalid. expected a number above 0 and at most 1"],
    [["--data", "x"], "unknown option '--data'"],
  ])("%j is refused", async (flags, message) => {
    expect(await heddle(".", ...args, ...flags)).toEqual({ code: 2, stdout: "", stderr: `error: ${message}\n` });
  });

  test("Ctrl-C leaves where no answer is being given", async () => {
    opByOp();
    const child = startReading(".", ...args);
    const ended = once(child, "close");
    child.stdin.write("7*8=\n");
    let stdout = "";
    for await (const text of child.stdout.setEncoding("utf8")) {
      stdout += text;
      if (stdout === "56\n") child.kill("SIGINT");
    }
    expect([await ended, stdout]).toEqual([[0, null], "56\n"]);
  });
});
