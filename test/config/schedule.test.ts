import { describe, expect, test } from "vitest";
import { compileSchedule, ScheduleError } from "../../config/schedule.js";

const at = async (value: number | string, variables = {}) => (await compileSchedule(value))(variables);
const complaint = (value: string, variables = {}) =>
  at(value, variables).then(
    (result) => `no error: ${result}`,
    (error) => {
      expect(error).toBeInstanceOf(ScheduleError);
      return (error as Error).message;
    },
  );

describe("compileSchedule", () => {
  test("gives a number back unchanged, whatever the step", async () => {
    expect(await at(3e-4)).toBe(3e-4);
    expect(await at(0, { step: 7 })).toBe(0);
  });

  test("evaluates warm-up followed by linear decay", async () => {
    const rate = await compileSchedule("1e-3 * min(1, step / 20) * (1 - (step - 1) / steps)");
    expect(rate({ step: 1, steps: 200 })).toBeCloseTo(5e-5, 15);
    expect(rate({ step: 20, steps: 200 })).toBeCloseTo(1e-3 * (181 / 200), 15);
    expect(rate({ step: 200, steps: 200 })).toBeCloseTo(1e-3 / 200, 15);
  });

  test.each([
    ["step > 10 ? 1 : 2", { step: 11 }, 1],
    ["step > 10 ? 1 : 2", { step: 10 }, 2],
    ["1 < step <= 3 ? 1 : 0", { step: 3 }, 1],
    ["(step == 2) * 5 + (step != 2)", { step: 2 }, 5],
    ["-2^2 + 7 % 4", {}, -1],
    ["pow(2, 3) + max(1, 2, 3) + abs(-1)", {}, 12],
    ["floor(1.5) + ceil(1.5) + round(2.4)", {}, 5],
    ["exp(log(2)) + log10(100) + sqrt(9)", {}, 7],
    ["0.5 * (1 + cos(pi * step / steps))", { step: 1, steps: 2 }, 0.5],
    ["sin(0) + tanh(0) + e - e", {}, 0],
    ["0.3 + 0.2 * layer / (layers - 1)", { layer: 2, layers: 3 }, 0.5],
    ["0.1 / iteration", { iteration: 2 }, 0.05],
  ])("%s with %o is %d", async (expression, variables, expected) => {
    expect(await at(expression, variables)).toBeCloseTo(expected, 12);
  });

  test.each([
    ["1e-4 * lr", `"1e-4 * lr": lr is not known; expected one of step, steps, iteration, layer, layers, pi, e`],
    [
      "import(step)",
      `"import(step)": import() is not known; expected one of min, max, abs, floor, ceil, round, exp, log, log10, sqrt, sin, cos, tanh, pow`,
    ],
    ["min", `"min": min is not known; expected one of step, steps, iteration, layer, layers, pi, e`],
    [
      "step = 3",
      `"step = 3": step = 3 is not allowed; expected numbers, variables, operators, a ? b : c and functions`,
    ],
    [
      "f(x) = x",
      `"f(x) = x": f(x) = x is not allowed; expected numbers, variables, operators, a ? b : c and functions`,
    ],
    ["step[1]", `"step[1]": step[1] is not allowed; expected numbers, variables, operators, a ? b : c and functions`],
    [
      "step.constructor",
      `"step.constructor": step.constructor is not allowed; expected numbers, variables, operators, a ? b : c and functions`,
    ],
    ["[1, 2]", `"[1, 2]": [1, 2] is not allowed; expected numbers, variables, operators, a ? b : c and functions`],
    ["{a: 1}", `"{a: 1}": {"a": 1} is not allowed; expected numbers, variables, operators, a ? b : c and functions`],
    ["1; 2", `"1; 2": 1;\n2 is not allowed; expected numbers, variables, operators, a ? b : c and functions`],
    ["1:3", `"1:3": 1:3 is not allowed; expected numbers, variables, operators, a ? b : c and functions`],
    ["'cos'", `"'cos'": "cos" is not a number`],
    ["step > 1 and true", `"step > 1 and true": the operator and is not allowed; expected + - * / ^ % or a comparison`],
    ["step!", `"step!": the operator ! is not allowed; expected + - * / ^ % or a comparison`],
    ["2 step", `"2 step": 2 step lacks an operator; expected * between the two`],
    ["", `"": undefined is not a number`],
  ])("refuses %s", async (expression, message) => {
    expect(await complaint(expression, { step: 1 })).toBe(message);
  });

  test("reports what cannot be parsed", async () => {
    expect(await complaint("3e-4 * (1")).toBe(`"3e-4 * (1" is not an expression: Parenthesis ) expected (char 10)`);
  });

  test("refuses a call whose function is computed", async () => {
    expect(await complaint("cos.constructor(1)")).toMatch(/^"cos.constructor\(1\)": cos.constructor\(\) is not known;/);
  });

  test("names the step at which a value is not finite", async () => {
    const rate = await compileSchedule("1e-4 / (step - 50)");
    expect(rate({ step: 49, steps: 100 })).toBe(-1e-4);
    expect(() => rate({ step: 50, steps: 100 })).toThrow(
      new ScheduleError(`"1e-4 / (step - 50)" is Infinity at step 50, expected a finite number`),
    );
    expect(await complaint("0 / 0")).toBe(`"0 / 0" is NaN, expected a finite number`);
  });

  test("refuses a comparison as the whole value", async () => {
    expect(await complaint("step > 1", { step: 3 })).toBe(`"step > 1" is true at step 3, expected a finite number`);
  });

  test("refuses a variable that has no value where the expression stands", async () => {
    expect(await complaint("layer / 10", { step: 1, steps: 2 })).toBe(
      `"layer / 10": layer has no value here; expected only step, steps`,
    );
  });

  test("reports a function that is called with too few arguments", async () => {
    expect(await complaint("min()")).toBe(`"min()": Too few arguments in function min (expected: any, index: 0)`);
  });
});
