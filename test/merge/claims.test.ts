import { expect, test } from "vitest";
import { claim, MAX_CLAIMS, newClaims, offer } from "../../merge/claims.js";

test("a job is for the first that claims it", () => {
  const claims = newClaims();
  expect(claim(claims, 0)).toBe(false);
  offer(claims, 0);
  offer(claims, MAX_CLAIMS - 1);
  expect([claim(claims, 0), claim(claims, 0)]).toEqual([true, false]);
  expect([claim(claims, MAX_CLAIMS - 1), claim(claims, MAX_CLAIMS - 1)]).toEqual([true, false]);
});

test("a job that was taken back is not claimed again when its place has another", () => {
  const claims = newClaims();
  offer(claims, 3);
  expect(claim(claims, 3)).toBe(true);
  offer(claims, 3 + MAX_CLAIMS);
  expect(claim(claims, 3)).toBe(false);
  expect(claim(claims, 3 + MAX_CLAIMS)).toBe(true);
});
