/** TLS with client certificates, to a real daemon. */
import assert from "node:assert/strict";
import { copyFile, mkdtemp, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { McastClient, McastError, status, type TlsFiles } from "mcast-client";
import { all, route, setting } from "./router.js";

const { address, known, unknown, strange } = setting.tls;

async function using<T>(tls: TlsFiles, use: (client: McastClient) => Promise<T>): Promise<T> {
    const client = new McastClient(address, { tls });
    try {
        return await use(client);
    } finally {
        client.close();
    }
}

test("a principal writes as its owner", async () => {
    await using(known, async (client) => {
        await client.put([route("232.1.0.1", "10.9.0.1", "down1")]);
        const [listed] = await all(client.list());
        assert.equal(listed?.status?.owner, "node");
        await assert.rejects(client.put([route("232.1.0.2", "10.9.0.1")], { owner: "other" }), { reason: "NOT_ALLOWED" });
        await assert.rejects(client.reload(), { code: status.PERMISSION_DENIED });
        await client.deleteAll();
    });
});

test("nobody is let in whom the configuration does not name", async () => {
    await using(unknown, (client) =>
        assert.rejects(client.status(), (error) => error instanceof McastError && error.code === status.PERMISSION_DENIED),
    );
});

for (const [what, tls] of [
    ["without a certificate", { ca: known.ca }],
    ["with a certificate of another authority", { ...strange, ca: known.ca }],
    ["where the daemon's certificate is of another authority", { ...known, ca: strange.ca }],
    ["where it is for another name", { ...known, serverName: "elsewhere.example" }],
] as const) {
    test(`no connection ${what}`, async () => {
        await using(tls, (client) => assert.rejects(client.status(), { code: status.UNAVAILABLE }));
    });
}

test("files of no use are an error at once", () => {
    assert.throws(() => new McastClient(address, { tls: { ca: "/nowhere.pem" } }), { code: "ENOENT" });
    assert.throws(() => new McastClient(address, { tls: { ca: known.ca, certificate: known.ca } }), /certificate and key/);
});

test("files that do not fit leave the last good ones in use", async () => {
    const directory = await mkdtemp(join(tmpdir(), "mcast-client-"));
    const files = { ca: join(directory, "ca.pem"), certificate: join(directory, "cert.pem"), key: join(directory, "key.pem") };
    await copyFile(known.ca, files.ca);
    await copyFile(known.certificate ?? "", files.certificate);
    await copyFile(known.key ?? "", files.key);
    const warnings: Error[] = [];
    const hear = (warning: Error) => {
        warnings.push(warning);
    };
    process.on("warning", hear);
    await using(files, async (client) => {
        await client.status();
        await copyFile(unknown.certificate ?? "", files.certificate); // the key comes later
        await client.status();
        await client.status();
        await copyFile(unknown.key ?? "", files.key);
        await assert.rejects(client.status(), { code: status.PERMISSION_DENIED });
    });
    process.removeListener("warning", hear);
    const ours = warnings.filter((warning) => "code" in warning && warning.code === "MCAST_TLS");
    assert.equal(ours.length, 1);
    assert.match(ours[0]?.message ?? "", /last good certificates/);
    await rm(directory, { recursive: true });
});

test("certificates that are replaced are used for the next call, and break no watch", async () => {
    const directory = await mkdtemp(join(tmpdir(), "mcast-client-"));
    const files = { ca: join(directory, "ca.pem"), certificate: join(directory, "cert.pem"), key: join(directory, "key.pem") };
    const place = async (tls: Partial<TlsFiles>) => {
        for (const [name, from] of Object.entries(tls)) {
            const to = files[name as keyof typeof files];
            await copyFile(from, `${to}.new`);
            await rename(`${to}.new`, to);
        }
    };
    await place(known);
    await using(files, async (client) => {
        const events = client.watch()[Symbol.asyncIterator]();
        await events.next();
        await place(unknown);
        await assert.rejects(client.status(), { code: status.PERMISSION_DENIED });
        await place(known);
        const changed = await client.setInterface("down1", { pinned: true });
        assert.equal(changed.pinned, true);
        for (;;) {
            const { value } = await events.next();
            assert.ok(value && value.type !== "reset", "the watch goes on with the connection it has");
            if (value.type === "put" && value.object.$case === "interface" && value.object.value.pinned) {
                break;
            }
        }
        await client.setInterface("down1", { pinned: false });
        await events.return();
    });
    await rm(directory, { recursive: true });
});
