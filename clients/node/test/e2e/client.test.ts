/** Calls to a real daemon. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
    duration,
    McastClient,
    McastError,
    milliseconds,
    RouteChange_Action,
    RouteState,
    status,
    throwOnFailures,
    Wildcard,
} from "mcast-client";
import { all, client, FAMILIES, route } from "./router.js";

const daemon = client();

for (const { name, source, group } of FAMILIES) {
    test(`${name}: put, patch, list, delete`, async () => {
        const put = await daemon.put([route(group(1), source, "down1")], { returnChanges: true });
        assert.equal(put.created, 1);
        const [change] = put.changes;
        assert.equal(change?.action, RouteChange_Action.CREATE);
        assert.equal(change.after?.status?.state, RouteState.PROGRAMMED);
        assert.equal(change.after.status.owner, "local");
        assert.ok(change.after.status.revision >= 2n ** 40n, "a revision is a start count << 40 | counter");

        const patched = await daemon.patch([{ key: { group: group(1), source }, addOifs: [{ interface: "down2" }] }]);
        assert.equal(patched.updated, 1);
        assert.ok(patched.revision > put.revision);

        const [listed] = await all(daemon.list({ selector: { group: group(1), source }, counters: true, maxAge: duration(0) }));
        assert.deepEqual(listed?.status?.installedOifs.sort(), ["down1", "down2"]);
        assert.equal(listed.status.counters?.packets, 0n);
        assert.ok(listed.status.installTime instanceof Date);
        assert.ok(Math.abs(listed.status.installTime.getTime() - Date.now()) < 60_000);

        assert.equal((await daemon.delete([{ group: group(1), source }])).deleted, 1);
        assert.equal((await daemon.delete([{ group: group(1), source }])).deleted, 0);
    });

    test(`${name}: replace touches only what differs`, async () => {
        const wanted = Array.from({ length: 2500 }, (_, number) => route(group(number), source, "down1"));
        const first = await daemon.replace(wanted, { owner: "replacer" });
        assert.equal(first.created, 2500);
        const second = await daemon.replace(wanted.slice(1), { owner: "replacer", maxDeletions: 1 });
        assert.deepEqual([second.unchanged, second.deleted], [2499, 1]);
        const snapshot = await daemon.snapshot({ selector: { owner: "replacer" } });
        assert.equal(snapshot.routes.length, 2499);
        assert.ok(snapshot.revision >= second.revision);
        assert.notEqual(snapshot.resumeToken, "");
        await assert.rejects(daemon.replace([], { owner: "replacer" }), {
            reason: "EMPTY_SET",
            code: status.FAILED_PRECONDITION,
        });
        await assert.rejects(daemon.replace(wanted.slice(2000), { owner: "replacer", maxDeletions: 10 }), (error) => {
            assert.ok(error instanceof McastError);
            assert.equal(error.reason, "TOO_MANY_DELETIONS");
            assert.deepEqual(error.metadata, { would: "1999", max: "10" });
            return true;
        });
        assert.equal((await daemon.deleteMatching({ owner: "replacer" }, { owner: "replacer" })).deleted, 2499);
    });

    test(`${name}: templates carry durations and enums`, async () => {
        const template = {
            group: group(1),
            wildcard: Wildcard.TEMPLATE,
            idleTimeout: duration(90_500),
            oifs: [{ interface: "down1" }],
        };
        await daemon.put([template]);
        const [listed] = await all(daemon.list({ selector: { states: [RouteState.TEMPLATE] } }));
        assert.ok(listed?.idleTimeout);
        assert.equal(milliseconds(listed.idleTimeout), 90_500);
        assert.equal(listed.source, "");
        assert.equal(await daemon.flushLearned({ group: group(1) }), 0);
        await daemon.delete([{ group: group(1) }]);
    });

    test(`${name}: joins`, async () => {
        const join = { interface: "up", group: group(7), source };
        assert.deepEqual((await daemon.putJoins([join])).joins, []);
        const [held] = await all(daemon.joins({ group: group(7) }));
        assert.equal(held?.owner, "local");
        await daemon.deleteJoins([join]);
        assert.deepEqual(await all(daemon.joins({ group: group(7) })), []);
    });
}

test("a request that is refused names the field", async () => {
    await assert.rejects(daemon.put([route("10.1.1.1", "10.0.0.5", "down1")]), (error) => {
        assert.ok(error instanceof McastError);
        assert.equal(error.code, status.INVALID_ARGUMENT);
        assert.equal(error.reason, "INVALID_GROUP");
        assert.deepEqual(error.metadata, { field: "routes[0].group", value: "10.1.1.1" });
        assert.equal(error.fields[0]?.field, "routes[0].group");
        assert.equal(error.retryable, false);
        assert.match(error.message, /routes\[0\]\.group/);
        return true;
    });
});

test("an item that fails alone is in the result", async () => {
    await daemon.put([route("232.9.9.9", "10.9.0.1", "down1")], { owner: "first" });
    const result = await daemon.put([route("232.9.9.9", "10.9.0.1", "down2"), route("232.9.9.8", "10.9.0.1", "nowhere")]);
    assert.deepEqual([result.created, result.failed], [1, 1]);
    assert.throws(
        () => {
            throwOnFailures(result);
        },
        { reason: "OWNED_BY_OTHER", code: status.ALREADY_EXISTS, metadata: { owner: "first" } },
    );
    const partial = result.changes.find((change) => change.id === 1n);
    assert.equal(partial?.after?.status?.state, RouteState.PARTIAL);
    assert.deepEqual(partial.after.status.missingInterfaces, ["nowhere"]);
    assert.equal(partial.after.status.lastError?.reason, "NO_SUCH_INTERFACE");
    await daemon.delete([{ group: "232.9.9.9", source: "10.9.0.1" }], { takeOver: true });
});

test("64 bits are kept", async () => {
    const epoch = 2n ** 64n - 2n;
    await daemon.put([route("232.9.9.9", "10.9.0.1", "down1")], { owner: "fenced", epoch });
    const owner = (await daemon.status()).owners.find(({ name }) => name === "fenced");
    assert.equal(owner?.epoch, epoch);
    const late = daemon.put([route("232.9.9.9", "10.9.0.1")], { owner: "fenced", epoch: epoch - 1n });
    await assert.rejects(
        late,
        (error) => error instanceof McastError && error.reason === "STALE_EPOCH" && error.metadata.highest === String(epoch),
    );
    await daemon.delete([{ group: "232.9.9.9", source: "10.9.0.1" }], { owner: "fenced", epoch });
});

test("what is not said differs from what is said to be 0", async () => {
    await daemon.put([{ ...route("232.9.9.9", "10.9.0.1", "down1"), table: 7 }]);
    assert.equal((await all(daemon.list({ selector: { group: "232.9.9.9" } }))).length, 1);
    assert.equal((await all(daemon.list({ selector: { group: "232.9.9.9", table: 0 } }))).length, 0);
    await daemon.delete([{ group: "232.9.9.9", source: "10.9.0.1", table: 7 }]);

    assert.equal((await daemon.setInterface("down2", { pinned: true, ttlThreshold: 5 })).ttlThreshold, 5);
    const other = await daemon.setInterface("down2", { routerDiscovery: false });
    assert.deepEqual([other.pinned, other.ttlThreshold], [true, 5]);
    assert.equal((await daemon.setInterface("down2", { pinned: false, ttlThreshold: 1 })).pinned, false);
});

test("a dry run changes nothing", async () => {
    const result = await daemon.put([route("232.9.9.9", "10.9.0.1", "down1")], { validateOnly: true, returnChanges: true });
    assert.equal(result.created, 1);
    assert.deepEqual(await all(daemon.list({ selector: { group: "232.9.9.9" } })), []);
    assert.equal((await daemon.reload({ validateOnly: true })).interfacesChanged, 0);
});

test("interfaces and status", async () => {
    const [up] = await daemon.interfaces("up");
    assert.deepEqual([up?.name, up?.up], ["up", true]);
    const { limits, instanceId, startTime } = await daemon.status();
    assert.equal(limits?.vifsMax, 32);
    assert.notEqual(instanceId, "");
    assert.ok(startTime instanceof Date);
});

test("a call that is aborted rejects with the signal's reason, one out of time with its code", async () => {
    const reason = new Error("enough");
    await assert.rejects(daemon.status({ signal: AbortSignal.abort(reason) }), reason);
    const stop = new AbortController();
    const late = daemon.status({ signal: stop.signal });
    stop.abort(reason);
    await assert.rejects(late, reason);
    await assert.rejects(daemon.status({ timeoutMs: -1 }), { code: status.DEADLINE_EXCEEDED });
});

test("a set whose source throws changes nothing", async () => {
    function* broken() {
        yield route("232.9.9.9", "10.9.0.1", "down1");
        throw new Error("the inventory is gone");
    }
    await assert.rejects(daemon.replace(broken(), { owner: "broken" }), /the inventory is gone/);
    assert.deepEqual(await all(daemon.list({ selector: { owner: "broken" } })), []);
});

test("where nobody listens", async () => {
    const nobody = new McastClient("unix:/nowhere/mcastd.sock");
    await assert.rejects(
        nobody.status(),
        (error) => error instanceof McastError && error.code === status.UNAVAILABLE && error.retryable,
    );
    await assert.rejects(nobody.connect(50), { code: status.UNAVAILABLE });
    nobody.close();
    assert.throws(() => nobody.stubs, /closed/);
});
