/**
 * Hyper-parameters that change while a run goes on: a number, or an expression such as "3e-4 * min(1, step / 100)".
 * mathjs parses and evaluates; it has no safe mode, so every node of the tree is checked against a list first.
 */
import type { ConstantNode, FunctionNode, MathNode, OperatorNode, SymbolNode } from "mathjs";

/** What an expression may refer to. Which of them have a value depends on where the expression stands. */
export type ScheduleVariables = {
  /** Optimiser step within its stage: 1 is the first, `steps` the last. */
  step?: number;
  /** Optimiser steps of the stage. */
  steps?: number;
  /** Iteration of WARP, from 1; 1 in a stage that runs by itself. */
  iteration?: number;
  /** Transformer layer, from 0 as in tensor names. */
  layer?: number;
  /** Transformer layers of the model. */
  layers?: number;
};

/** The value at one point of a run. Throws ScheduleError where that is no finite number. */
export type Schedule = (variables: ScheduleVariables) => number;

/** An expression that is not allowed, or that has no finite value where it was asked. */
export class ScheduleError extends Error {
  override readonly name = "ScheduleError";
}

const variableNames = new Set(["step", "steps", "iteration", "layer", "layers"]);
const constantNames = new Set(["pi", "e"]);
const functionNames = new Set(
  "min max abs floor ceil round exp log log10 sqrt sin cos tanh pow".split(" "), // log(x, base) takes a base too
);
const operatorNames = new Set(
  "add subtract multiply divide pow mod unaryMinus unaryPlus smaller larger smallerEq largerEq equal unequal".split(
    " ",
  ),
);

/**
 * Turns a number or an expression into a function. mathjs is loaded at the first expression, never for numbers.
 * @throws ScheduleError that names the piece of the expression that is not allowed
 */
export async function compileSchedule(value: number | string): Promise<Schedule> {
  if (typeof value === "number") return () => value;
  const { parse } = await import("mathjs/number");
  let tree: MathNode;
  try {
    tree = parse(value);
  } catch (error) {
    throw new ScheduleError(`"${value}" is not an expression: ${(error as Error).message}`);
  }
  const used = new Set<string>();
  tree.traverse((node, path) => {
    // The name of a function is a node of its own; it is checked with its call.
    if (path !== "fn") checkNode(node, value, used);
  });
  const compiled = tree.compile();
  return (variables) => evaluate(() => compiled.evaluate({ ...variables }), value, used, variables);
}

/** Throws unless the node itself (not what is below it) is on the list; notes the variables it names in `used`. */
function checkNode(node: MathNode, expression: string, used: Set<string>): void {
  const refuse = (problem: string) => {
    throw new ScheduleError(`"${expression}": ${problem}`);
  };
  switch (node.type) {
    case "ConstantNode":
      if (typeof (node as ConstantNode).value !== "number") refuse(`${node} is not a number`);
      return;
    case "SymbolNode": {
      const { name } = node as SymbolNode;
      if (variableNames.has(name)) used.add(name);
      else if (!constantNames.has(name)) {
        refuse(`${name} is not known; expected one of ${[...variableNames, ...constantNames].join(", ")}`);
      }
      return;
    }
    case "FunctionNode": {
      const name = `${(node as FunctionNode).fn}`;
      if (!functionNames.has(name)) {
        refuse(`${name}() is not known; expected one of ${[...functionNames].join(", ")}`);
      }
      return;
    }
    case "OperatorNode": {
      const { fn, op, implicit } = node as OperatorNode<never, never>;
      if (!operatorNames.has(fn)) refuse(`the operator ${op} is not allowed; expected + - * / ^ % or a comparison`);
      if (implicit) refuse(`${node} lacks an operator; expected * between the two`);
      return;
    }
    case "ParenthesisNode":
    case "ConditionalNode":
    case "RelationalNode":
      return;
    default:
      refuse(`${node} is not allowed; expected numbers, variables, operators, a ? b : c and functions`);
  }
}

function evaluate(
  run: () => unknown,
  expression: string,
  used: ReadonlySet<string>,
  variables: ScheduleVariables,
): number {
  const known = Object.entries(variables).filter(([, value]) => value !== undefined);
  for (const name of used) {
    if (known.some(([key]) => key === name)) continue;
    const names = known.map(([key]) => key).join(", ");
    throw new ScheduleError(`"${expression}": ${name} has no value here; expected only ${names}`);
  }
  let result: unknown;
  try {
    result = run();
  } catch (error) {
    throw new ScheduleError(`"${expression}": ${(error as Error).message}`);
  }
  if (typeof result === "number" && Number.isFinite(result)) return result;
  const where = known.filter(([key]) => used.has(key)).map(([key, value]) => `${key} ${value}`);
  const at = where.length === 0 ? "" : ` at ${where.join(", ")}`;
  throw new ScheduleError(`"${expression}" is ${result}${at}, expected a finite number`);
}
