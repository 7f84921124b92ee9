import assert from "node:assert/strict";
import { test } from "node:test";
import { Backoff } from "../../src/backoff.js";

test("bounds double up to the maximum, and begin again", () => {
    const backoff = new Backoff({ initialMs: 100, maximumMs: 500 }, () => 0.5);
    assert.deepEqual(
        Array.from({ length: 5 }, () => backoff.next()),
        [50, 100, 200, 250, 250],
    );
    backoff.reset();
    assert.equal(backoff.next(), 50);
    assert.equal(backoff.next(1000), 1000);
});

test("delays are spread from 0 to the bound", () => {
    const delays = Array.from({ length: 1000 }, () => new Backoff().next());
    assert.ok(Math.min(...delays) < 10 && Math.max(...delays) > 90 && Math.max(...delays) < 100);
});

test("after many attempts it is still a number", () => {
    const backoff = new Backoff({}, () => 1);
    for (let attempt = 0; attempt < 5000; attempt++) {
        backoff.next();
    }
    assert.equal(backoff.next(), 10_000);
});

test("bounds that cannot be", () => {
    assert.throws(() => new Backoff({ initialMs: 0 }), /initialMs \(0\)/);
    assert.throws(() => new Backoff({ maximumMs: 50 }), RangeError);
    assert.throws(() => new Backoff({ initialMs: NaN }), RangeError);
});

test("a signal ends the waiting", async () => {
    await assert.rejects(Backoff.wait(60_000, AbortSignal.abort()), { name: "AbortError" });
    await Backoff.wait(0);
});
