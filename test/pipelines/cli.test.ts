/** The program as a user starts it: bin/heddle.js under plain node, from another directory. */
import { spawn } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { compiledModule, packageRoot } from "../../config/paths.js";

const bin = fileURLToPath(new URL("bin/heddle.js", packageRoot));
const stub = fileURLToPath(compiledModule("test/pipelines/stub-cli.js"));
const dir = mkdtempSync(join(tmpdir(), "heddle-cli-"));
writeFileSync(join(dir, "rows.jsonl"), '{"prompt":"a"}\n');
mkdirSync(join(dir, "model"));

async function run(script: string, ...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [script, ...args], { cwd: dir, stdio: ["ignore", "pipe", "pipe"] });
  const text = async (stream: NodeJS.ReadableStream) => {
    let all = "";
    for await (const chunk of stream.setEncoding("utf8")) all += chunk;
    return all;
  };
  const code = new Promise<number>((resolve) => child.once("close", resolve));
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  return { code: await code, stdout, stderr };
}
const heddle = (...args: string[]) => run(bin, ...args);

describe("heddle", () => {
  test("--version is the package's", async () => {
    const { version } = JSON.parse(readFileSync(new URL("package.json", packageRoot), "utf8"));
    expect(await heddle("--version")).toEqual({ code: 0, stdout: `${version}\n`, stderr: "" });
  });

  test("--help lists the commands and loads commander alone: it must not keep anybody waiting", async () => {
    const { code, stdout } = await heddle("--help");
    expect(code).toBe(0);
    const work = ["warp", "sft", "distill", "rl", "generate", "score", "eval", "serve"];
    for (const command of [...work, "slerp", "liti", "inspect", "doctor"]) {
      expect(stdout).toMatch(new RegExp(`^ {2}${command} `, "m"));
    }

    writeFileSync(
      join(dir, "hook.mjs"),
      `import { writeSync } from "node:fs";
      export async function resolve(specifier, context, next) {
        const found = await next(specifier, context);
        writeSync(2, found.url + " ");
        return found;
      }`,
    );
    writeFileSync(
      join(dir, "loaded.mjs"),
      `import { register } from "node:module";
      register("./hook.mjs", import.meta.url);
      const { main } = await import("${compiledModule("pipelines/cli.js")}");
      await main(["--help"]);`,
    );
    const { stderr } = await run(join(dir, "loaded.mjs"));
    const packages = [...stderr.matchAll(/node_modules\/((?:@[^/]+\/)?[^/ ]+)/g)].map(([, name]) => name);
    expect(new Set(packages)).toEqual(new Set(["@commander-js/extra-typings", "commander"]));
  });

  test("the bundle comes with its code, which V8 takes", async () => {
    const loader = fileURLToPath(new URL("bin/bundled.js", packageRoot));
    writeFileSync(
      join(dir, "bundled.mjs"),
      `import { load, scripts } from "${loader}";
      load("cli.cjs");
      console.log(scripts().length, scripts().filter(([, script]) => script.cachedDataRejected !== false));`,
    );
    expect((await run(join(dir, "bundled.mjs"))).stdout).toMatch(/^[1-9]\d* \[\]$/m);
  });

  test("the bundle has no file that nothing of it loads, such as an earlier build's", () => {
    const folder = fileURLToPath(compiledModule("bundle/"));
    const loaded = new Set(["cli.cjs", "worker.cjs"]);
    for (const name of loaded) {
      const text = readFileSync(join(folder, name), "utf8");
      for (const [, other] of text.matchAll(/require\("\.\/([^"]+)"\)/g)) loaded.add(other!);
    }
    expect(readdirSync(folder).filter((name) => !loaded.has(name.replace(/\.code$/, "")))).toEqual([]);
  });

  test("without a command it shows the help on stderr", async () => {
    const { code, stdout, stderr } = await heddle();
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toContain("Usage: heddle [options] [command]");
  });

  test("says what to run when it is not built", async () => {
    const clone = mkdtempSync(join(tmpdir(), "heddle-clone-"));
    writeFileSync(join(clone, "package.json"), '{"type":"module"}');
    cpSync(dirname(bin), join(clone, "bin"), { recursive: true });
    expect(await run(join(clone, "bin", "heddle.js"), "warp")).toEqual({
      code: 2,
      stdout: "",
      stderr: `error: heddle is not built: run npm run setup in ${clone}/\n`,
    });
  });
});

describe("bad input is one clear line and code 2", () => {
  const files = ["--model", "model", "--data", "rows.jsonl"];
  const cases: [string[], string][] = [
    [["distil"], "error: unknown command 'distil' (Did you mean distill?)"],
    [["warp"], "error: missing required argument 'config'"],
    [["warp", "a.yaml", "--st", "x=1"], "error: unknown option '--st' (Did you mean --set?)"],
    [
      ["rl", "a.yaml", "--set", "steps"],
      "error: option '--set <key=value>' argument 'steps' is invalid. expected key=value, as in rl.steps=50",
    ],
    [["score", ...files], "error: required option '--out <file>' not specified"],
    [
      ["score", "--model", "mod", "--data", "rows.jsonl", "--out", "o"],
      "error: option '--model <dir>' argument 'mod' is invalid. no such folder (looked in DIR)",
    ],
    [
      ["generate", ...files, "--out", "no/o"],
      "error: option '--out <file>' argument 'no/o' is invalid. its folder does not exist: DIR/no",
    ],
    [
      ["generate", ...files, "--out", "o", "--top-p", "0"],
      "error: option '--top-p <p>' argument '0' is invalid. expected a number above 0 and at most 1",
    ],
    [
      ["eval", ...files, "--max-new-tokens", "0"],
      "error: option '--max-new-tokens <n>' argument '0' is invalid. expected an integer, 1 or more",
    ],
  ];
  for (const [args, line] of cases) {
    test(args.join(" "), async () => {
      expect(await heddle(...args)).toEqual({ code: 2, stdout: "", stderr: `${line.replace("DIR", dir)}\n` });
    });
  }

  test("a config that is not there", async () => {
    const { code, stdout, stderr } = await heddle("warp", "nope.yaml");
    expect([code, stdout]).toEqual([2, ""]);
    expect(stderr).toMatch(/^error: nope\.yaml: .*\n$/);
  });
});

describe("exit codes of a task", () => {
  const task = (params: object) => run(stub, "run", JSON.stringify(params));

  test("0 and the result on stdout; what the child prints goes to stderr", async () => {
    expect(await task({ does: "return", value: { accuracy: 0.5 } })).toEqual({
      code: 0,
      stdout: '{"accuracy":0.5}\n',
      stderr: "",
    });
    expect(await task({ does: "write", stdout: "out\n", stderr: "" })).toMatchObject({ code: 0, stderr: "out\n" });
  });

  test("2 and the message alone for what the user can mend", async () => {
    expect(await task({ does: "throw user error" })).toEqual({
      code: 2,
      stdout: "",
      stderr: "error: data.jsonl:3: expected a prompt\n",
    });
    for (const name of ["SafetensorsError", "SetupError", "ModelError", "DataError", "ScheduleError", "TeacherError"]) {
      expect(await task({ does: "throw", name, message: "m" })).toMatchObject({ code: 2, stderr: "error: m\n" });
    }
    const full = { does: "throw", name: "Error", message: "ENOSPC: no space left on device, write", code: "ENOSPC" };
    expect(await task(full)).toMatchObject({ code: 2, stderr: `error: ${full.message}\n` });
  });

  test("75 when the teacher is away: later it may answer", async () => {
    const away = { does: "throw", name: "TeacherUnavailableError", message: "no answer for 60 s" };
    expect(await task(away)).toMatchObject({ code: 75, stderr: "error: no answer for 60 s\n" });
  });

  test("1 and the stack for anything else", async () => {
    const { code, stderr } = await task({ does: "throw", name: "TypeError", message: "x is not a function" });
    expect(code).toBe(1);
    expect(stderr).toContain("x is not a function\n    at run (");
    expect(stderr).toMatch(/This is a defect in heddle\. Please report it with the lines above\n$/);
  });
});
