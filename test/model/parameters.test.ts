/** Parameters in host memory and back. */
import { tf } from "tfjs-jit";
import { expect, test } from "vitest";
import { hostValues } from "../../model/parameters.js";

test("hostValues gives an array as it is, of any size: nothing goes through its keys", () => {
  // Node fails at those of an embedding: 262144 x 640 of them.
  const array = new Proxy(new Float32Array([1, 2]), {
    ownKeys() {
      throw new Error("its keys were asked for");
    },
  });
  const tensor = tf.tensor1d([1, 2]);
  tensor.dataSync = (() => array) as unknown as typeof tensor.dataSync;
  const before = tf.memory().numTensors;
  expect(hostValues(() => tensor.clone() && tensor)).toBe(array);
  expect(tf.memory().numTensors).toBe(before);
  tensor.dispose();
});
