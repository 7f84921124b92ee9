/** Following a real daemon. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Kind, keyOf, McastError, Watch, type WatchedObject, type WatchEvent } from "mcast-client";
import { all, client, FAMILIES, killServer, route, until } from "./router.js";

const daemon = client();

/** Reads until an event is of some type; returns all events so far. */
async function readTo(events: AsyncIterator<WatchEvent, void>, type: WatchEvent["type"], count = 1): Promise<WatchEvent[]> {
    const seen: WatchEvent[] = [];
    for (let left = count; left > 0;) {
        const next = await events.next();
        assert.ok(!next.done, "a watch does not end by itself");
        seen.push(next.value);
        left -= Number(next.value.type === type);
    }
    return seen;
}

for (const { name, source, group } of FAMILIES) {
    test(`${name}: a snapshot, then changes, and on from a token`, async () => {
        await daemon.put([route(group(1), source, "down1")]);
        const request = {
            kinds: [Kind.ROUTE],
            selector: { group: group(1), owner: "", cookie: "", source: "", interface: "", states: [] },
        };
        const watch = daemon.watch({ request });
        const events = watch[Symbol.asyncIterator]();
        assert.deepEqual(
            (await readTo(events, "synced")).map(({ type }) => type),
            ["reset", "put", "synced"],
        );

        await daemon.patch([{ key: { group: group(1), source }, addOifs: [{ interface: "down2" }] }]);
        const [changed] = await readTo(events, "put");
        assert.ok(changed?.type === "put" && changed.object.$case === "route");
        assert.equal(changed.object.value.oifs.length, 2);
        assert.ok(changed.time instanceof Date);
        const read = events.next(); // asking for more says that the event before is handled
        await until(() => Promise.resolve(watch.resumeToken !== ""));
        await daemon.delete([{ group: group(1), source }]);
        const gone = (await read).value;
        assert.ok(gone?.type === "delete");
        assert.equal(keyOf(gone.object), keyOf(changed.object));
        await events.return();

        const later = daemon.watch({ request: { ...request, resumeToken: watch.resumeToken } });
        const rest = await readTo(later[Symbol.asyncIterator](), "synced");
        assert.ok(!rest.some(({ type }) => type === "reset"), "a token is not answered by a snapshot");
    });
}

test("a watch outlives the server", { timeout: 60_000 }, async () => {
    const { source, group } = FAMILIES[0] ?? assert.fail();
    const known = new Map<string, WatchedObject>();
    const failures: McastError[] = [];
    const stop = new AbortController();
    let synced = 0;
    const following = (async () => {
        const watch = daemon.watch({
            request: { kinds: [Kind.ROUTE] },
            signal: stop.signal,
            onRetry: (error) => failures.push(error),
        });
        for await (const event of watch) {
            if (event.type === "reset") {
                known.clear();
            } else if (event.type === "put") {
                known.set(keyOf(event.object), event.object);
            } else if (event.type === "delete") {
                known.delete(keyOf(event.object));
            } else {
                synced += Number(event.type === "synced");
            }
        }
    })();
    await daemon.put([route(group(1), source, "down1"), route(group(2), source, "down1")]);
    await until(() => Promise.resolve(synced === 1 && known.size === 2));
    killServer();
    await until(() => Promise.resolve(synced === 2), 30_000);
    await daemon.put([route(group(3), source, "down1")]);
    await until(() => Promise.resolve(known.size === 3));
    const listed = await all(daemon.list());
    assert.deepEqual(listed.map((value) => keyOf({ $case: "route", value })).sort(), [...known.keys()].sort());
    assert.ok(failures.length > 0 && failures.every((error) => error.retryable));
    stop.abort(new Error("enough"));
    await assert.rejects(following, /enough/);
    await daemon.deleteAll();
});

test("a watch that is left is over", async () => {
    const before = (await daemon.status()).subscribers.length;
    for await (const event of daemon.watch()) {
        if (event.type === "synced") {
            break;
        }
    }
    await until(async () => (await daemon.status()).subscribers.length === before);
});

test("a watch that can never be is an error", async () => {
    const watch: Watch = daemon.watch({ request: { kinds: [Kind.COUNTERS], sampleInterval: { seconds: 0n, nanos: 1 } } });
    await assert.rejects(all(watch), { reason: "INVALID_VALUE" });
});
