import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { compiledModule } from "../../config/paths.js";
import { ChildCrash, InterruptedError } from "../../pipelines/errors.js";
import type { TaskEvent } from "../../pipelines/events.js";
import { runTask, startHost, type TaskOptions } from "../../pipelines/process.js";
import type { StubParams, StubRequest } from "./stub-task.js";

const stub = compiledModule("test/pipelines/stub-task.js");
const run = (params: StubParams, options?: TaskOptions) => runTask<unknown>(stub, params, options);

const errorOf = (work: Promise<unknown>): Promise<Error> =>
  work.then(
    () => new Error("did not fail"),
    (error: Error) => error,
  );

const seconds = async (work: Promise<unknown>) => {
  const startMs = performance.now();
  await work.catch(() => {});
  return (performance.now() - startMs) / 1000;
};

describe("runTask", () => {
  test("carries parameters and result as they are: typed arrays, NaN, undefined, maps", async () => {
    const value = { ids: new Int32Array([1, -2]), loss: Number.NaN, none: undefined, map: new Map([["a", 1n]]) };
    expect(await run({ does: "return", value })).toEqual(value);
  });

  test("carries 64 MB", async () => {
    const value = new Float32Array(16 << 20).fill(0.5);
    const result = (await run({ does: "return", value })) as Float32Array;
    expect(result.length).toBe(value.length);
    expect(result.at(-1)).toBe(0.5);
  });

  test("tells the events in order, while the child computes", async () => {
    const events: TaskEvent[] = [];
    const times: number[] = [];
    const onEvent = (event: TaskEvent) => {
      events.push(event);
      times.push(performance.now());
    };
    expect(await run({ does: "steps", steps: 3, stepMs: 200 }, { onEvent })).toBe(3);
    expect(events.map((event) => (event.type === "step" ? event.step : event.type))).toEqual([
      "stage",
      1,
      2,
      3,
      "stage",
    ]);
    expect(times[3]! - times[1]!).toBeGreaterThan(300);
  });

  test("throws what the task threw: name, message, code and the child's stack", async () => {
    const error = await errorOf(run({ does: "throw", name: "ModelError", message: "config.json: no", code: "E1" }));
    expect(error).toBeInstanceOf(Error);
    expect(error).toMatchObject({ name: "ModelError", message: "config.json: no", code: "E1" });
    expect(error.stack).toContain("stub-task.js");
  });

  test("passes on what the child writes", async () => {
    const lines: string[] = [];
    const onEvent = (event: TaskEvent) => {
      if (event.type === "output") lines.push(event.text);
    };
    const stderr = "one line\nlast line without an end";
    await run({ does: "write", stdout: "", stderr }, { onEvent });
    expect(lines).toEqual(["one line", "last line without an end"]);
  });

  test("names the signal that killed the child and its last lines", async () => {
    const onEvent = () => {};
    const crash = (signal: NodeJS.Signals, lastWords: string) =>
      errorOf(run({ does: "die", signal, lastWords }, { onEvent }));
    expect(await crash("SIGSEGV", "one\ntwo\n")).toEqual(
      new ChildCrash("the process that runs TensorFlow was killed by SIGSEGV. Its last lines:\n  one\n  two"),
    );
    expect((await crash("SIGKILL", "")).message).toBe(
      "the process that runs TensorFlow was killed by SIGKILL (Linux does that to a process when memory runs out). " +
        "It wrote nothing to stderr",
    );
  });

  test("an exit without an answer is a crash, too", async () => {
    await expect(run({ does: "exit", code: 7 })).rejects.toThrow(
      "the process that runs TensorFlow ended with code 7. It wrote nothing to stderr",
    );
  });

  test("stops after the step when the signal is aborted, and rejects with its reason", async () => {
    const controller = new AbortController();
    const steps: number[] = [];
    const reason = new InterruptedError("SIGINT", true);
    const onEvent = (event: TaskEvent) => {
      if (event.type !== "step") return;
      steps.push(event.step);
      controller.abort(reason);
    };
    const running = run({ does: "steps", steps: 100, stepMs: 100 }, { onEvent, signal: controller.signal });
    await expect(running).rejects.toBe(reason);
    expect(steps.length).toBeLessThan(4);
  });

  test("kills a child that does not stop within the grace", async () => {
    const controller = new AbortController();
    const onEvent = (event: TaskEvent) => {
      if (event.type === "stage") controller.abort();
    };
    const options = { onEvent, signal: controller.signal, graceMs: 300 };
    const running = run({ does: "steps", steps: 1, stepMs: 30_000 }, options);
    running.catch(() => {});
    expect(await seconds(running)).toBeLessThan(3);
    await expect(running).rejects.toBe(controller.signal.reason);
  });

  test("kills at once when told to", async () => {
    const controller = new AbortController();
    const onEvent = (event: TaskEvent) => {
      if (event.type === "stage") controller.abort();
    };
    const running = run({ does: "steps", steps: 1, stepMs: 30_000 }, { onEvent, killSignal: controller.signal });
    running.catch(() => {});
    expect(await seconds(running)).toBeLessThan(2);
    await expect(running).rejects.toBe(controller.signal.reason);
  });

  test("starts nothing when it is aborted already", async () => {
    await expect(run({ does: "return", value: 1 }, { signal: AbortSignal.abort() })).rejects.toThrow("aborted");
  });
});

describe("startHost", () => {
  test("answers requests, also those sent before it was ready, each with its own reply", async () => {
    const host = startHost(stub, { base: 10 });
    const ask = (request: StubRequest) => host.request<Float32Array>(request);
    const replies = await Promise.all([ask({ add: new Float32Array([1, 2]) }), ask({ add: new Float32Array([3]) })]);
    await host.ready;
    expect(replies).toEqual([new Float32Array([11, 12]), new Float32Array([13])]);
    await host.close();
    expect(await host.exited).toBeUndefined();
  });

  test("an error of one request leaves the others alone", async () => {
    const host = startHost(stub, { base: 0 });
    await expect(host.request({ fail: "top_k of 9" })).rejects.toMatchObject({
      name: "RangeError",
      message: "top_k of 9",
    });
    expect(await host.request({ add: new Float32Array([1]) })).toEqual(new Float32Array([1]));
    await host.close();
  });

  test("rejects ready and every request with the reason why it cannot open", async () => {
    const host = startHost(stub, { failOpen: "model: no such folder" });
    const failure = { name: "UserError", message: "model: no such folder" };
    await expect(host.request({})).rejects.toMatchObject(failure);
    await expect(host.ready).rejects.toMatchObject(failure);
    expect(await host.exited).toMatchObject(failure);
  });

  test("rejects what waits when the child dies, and what comes after", async () => {
    const host = startHost(stub, { base: 0 }, () => {});
    await host.ready;
    const waiting = host.request({ exit: 3 });
    await expect(waiting).rejects.toThrow("ended with code 3");
    expect(await host.exited).toBeInstanceOf(ChildCrash);
    await expect(host.request({})).rejects.toThrow("ended with code 3");
  });

  test("close ends a child that computes, within the grace, and rejects what it had not answered", async () => {
    const host = startHost(stub, { base: 0 });
    await host.ready;
    const waiting = host.request({ blockMs: 30_000 });
    waiting.catch(() => {});
    await sleep(200);
    expect(await seconds(host.close())).toBeLessThan(5);
    await expect(waiting).rejects.toThrow("the host was closed");
    await expect(host.request({})).rejects.toThrow("the host was closed");
  });
});
