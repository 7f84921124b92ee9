import assert from "node:assert/strict";
import { test } from "node:test";
import { duration, milliseconds } from "../../src/time.js";

for (const [ms, seconds, nanos] of [
    [0, 0n, 0],
    [1500, 1n, 500_000_000],
    [0.25, 0n, 250_000],
    [-1500, -1n, -500_000_000],
    [-0.5, 0n, -500_000],
    [1999.9999999, 2n, 0],
    [8.64e10, 86_400_000n, 0],
] as const) {
    test(`${ms} ms`, () => {
        assert.deepEqual(duration(ms), { seconds, nanos });
        assert.ok(Math.abs(milliseconds(duration(ms)) - ms) < 1e-6);
    });
}

test("no number", () => {
    assert.throws(() => duration(NaN), RangeError);
    assert.throws(() => duration(Infinity), RangeError);
});
