/** Sessions with a real daemon. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { duration, Lease_OnExpiry, McastClient, McastError, RouteState, Session, status } from "mcast-client";
import { all, client, FAMILIES, killServer, route, setting, until } from "./router.js";

const daemon = client();
const withdraw = { holdTime: duration(0), onExpiry: Lease_OnExpiry.WITHDRAW };

async function count(owner: string): Promise<number> {
    return (await all(daemon.list({ selector: { owner } }))).length;
}

for (const { name, source, group } of FAMILIES) {
    test(`${name}: operations are answered when the kernel has them`, async () => {
        const session = await daemon.program({ owner: "sdn", lease: withdraw });
        assert.deepEqual([session.opened.owner, session.opened.entries], ["sdn", 0]);
        const routes = Array.from({ length: 5000 }, (_, number) => route(group(number), source, "down1"));
        assert.deepEqual(await session.put(routes), []);
        assert.equal(await count("sdn"), 5000);
        assert.deepEqual(await session.patch([{ key: { group: group(4), source }, addOifs: [{ interface: "down2" }] }]), []);
        const exceptions = await session.run([
            { delete: { group: group(4), source } },
            { patch: { key: { group: group(4), source }, removeOifs: ["down2"] } },
            { put: route(group(4), source, "nowhere") },
        ]);
        assert.deepEqual(
            exceptions.map(({ id, error, after }) => [
                id,
                (error ?? after?.status?.lastError)?.reason ?? "",
                after?.status?.state,
            ]),
            [
                [1n, "NOT_FOUND", undefined],
                [2n, "NO_SUCH_INTERFACE", RouteState.PARTIAL],
            ],
        );
        await session.close();
        assert.equal(await session.ended, undefined);
        await assert.rejects(
            session.put([]).then(() => session.put([route(group(1), source)])),
            { code: status.CANCELLED },
        );
        await until(async () => (await count("sdn")) === 0);
    });

    test(`${name}: calls that overlap keep their order`, async () => {
        const session = await daemon.program({ owner: "sdn", lease: withdraw });
        const many = Array.from({ length: 3000 }, () => route(group(1), source, "down1"));
        const answers = await Promise.all([
            session.put(many),
            session.put([route(group(1), source, "down2")]),
            session.delete([{ group: group(2), source }]),
            session.patch([{ key: { group: group(1), source }, addOifs: [{ interface: "down1" }] }]),
        ]);
        assert.deepEqual(answers.flat(), []);
        const [listed] = await all(daemon.list({ selector: { owner: "sdn" } }));
        assert.deepEqual(listed?.status?.installedOifs.sort(), ["down1", "down2"]);
        await session.close();
    });

    test(`${name}: a replay deletes what it does not name, within its bound`, async () => {
        const session = await daemon.program({ owner: "sdn", lease: withdraw });
        const routes = Array.from({ length: 2000 }, (_, number) => route(group(number), source, "down1"));
        assert.deepEqual(await session.sync(routes), { deleted: 0, entries: 2000, exceptions: [] });
        const refused = session.sync(routes.slice(100), 50);
        await assert.rejects(refused, { reason: "TOO_MANY_DELETIONS", metadata: { would: "100", max: "50" } });
        assert.deepEqual(await session.endSync(100), { deleted: 100, entries: 1900 });
        await assert.rejects(session.endSync(), { reason: "NO_SESSION" });
        assert.equal((await session.ended)?.reason, "NO_SESSION");
        await until(async () => (await count("sdn")) === 0);
    });
}

test("a higher epoch supersedes, a lower one is refused", async () => {
    const old = await daemon.program({ owner: "leader", epoch: 41n });
    const fresh = await daemon.program({ owner: "leader", epoch: 42n });
    const error = await old.ended;
    assert.ok(error instanceof McastError);
    assert.deepEqual([error.code, error.reason, error.metadata.by], [status.ABORTED, "SUPERSEDED", "42"]);
    await assert.rejects(old.put([route("232.1.0.1", "10.9.0.1")]), { reason: "SUPERSEDED" });
    await assert.rejects(daemon.program({ owner: "leader", epoch: 41n }), { reason: "STALE_EPOCH" });
    await fresh.close();
});

test("routes outlive the server, and a replay touches nothing", { timeout: 60_000 }, async () => {
    const lease = { holdTime: duration(60_000), onExpiry: Lease_OnExpiry.WITHDRAW };
    const routes = FAMILIES.map(({ group, source }) => route(group(1), source, "down1"));
    const session = await daemon.program({ owner: "sdn", epoch: 1n, lease });
    await session.sync(routes);
    const before = (await all(daemon.list({ selector: { owner: "sdn" } }))).map(({ status: now }) => now?.revision);
    killServer();
    const error = await session.ended;
    assert.ok(error?.retryable, String(error));
    const again = await reopened(() => daemon.program({ owner: "sdn", epoch: 1n, lease }));
    assert.notEqual(again.opened.instanceId, session.opened.instanceId);
    assert.equal(again.opened.entries, 2);
    assert.deepEqual(await again.sync(routes), { deleted: 0, entries: 2, exceptions: [] });
    const [owner] = (await daemon.status()).owners.filter(({ name }) => name === "sdn");
    assert.deepEqual([owner?.connected, owner?.stale, before.length], [true, 0, 2]);
    await again.close();
    await daemon.deleteAll({ owner: "sdn" });
});

async function reopened(open: () => Promise<Session>): Promise<Session> {
    let session: Session | undefined;
    await until(async () => {
        session = await open().catch((error: unknown) => {
            assert.ok(error instanceof McastError && error.retryable, String(error));
            return undefined;
        });
        return session !== undefined;
    }, 30_000);
    return session ?? assert.fail();
}

test("a session that cannot be", async () => {
    await assert.rejects(daemon.program({ owner: "No Name" }), { reason: "INVALID_VALUE" });
    const reason = new Error("enough");
    await assert.rejects(daemon.program({ signal: AbortSignal.abort(reason) }), reason);
    await assert.rejects(new McastClient("unix:/nowhere").program(), { code: status.UNAVAILABLE });
    const stop = new AbortController();
    const session = await new McastClient(setting.address).program({ owner: "stopped", signal: stop.signal });
    stop.abort();
    assert.equal((await session.ended)?.code, status.CANCELLED);
});
