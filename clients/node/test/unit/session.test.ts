import assert from "node:assert/strict";
import { test } from "node:test";
import { status, type ServerDuplexStream } from "@grpc/grpc-js";
import { ProgramRoutesResponse, type DeepPartial, type ProgramRoutesRequest } from "../../src/gen/mcast/v1/route_service.js";
import type { McastError } from "../../src/errors.js";
import { BATCH } from "../../src/session.js";
import { refusal, serving } from "./fake.js";

type Call = ServerDuplexStream<ProgramRoutesRequest, ProgramRoutesResponse>;
type Answer = NonNullable<ProgramRoutesResponse["response"]>;

function say(call: Call, response: DeepPartial<Answer>): void {
    call.write(ProgramRoutesResponse.fromPartial({ response }));
}

function end(call: Call, error: object): void {
    call.emit("error", error);
}

/** Takes each message after Open, which is answered. */
function daemon(take: (call: Call, message: NonNullable<ProgramRoutesRequest["request"]>) => void) {
    return {
        programRoutes: (call: Call) => {
            call.on("data", ({ request }: ProgramRoutesRequest) => {
                if (request?.$case === "open") {
                    say(call, { $case: "opened", value: { owner: request.value.owner, epoch: request.value.epoch } });
                } else if (request) {
                    take(call, request);
                }
            });
            call.on("end", () => {
                call.end();
            });
        },
    };
}

const route = (number: number) => ({ group: `232.1.${number >> 8}.${number & 255}`, source: "10.0.0.1" });

test("an ack answers all calls that it covers, each with its own exceptions", async () => {
    const ids: bigint[] = [];
    const fake = daemon((call, message) => {
        assert.ok(message.$case === "batch");
        ids.push(...message.value.ops.map(({ id }) => id));
        if (ids.length === 6) {
            const exceptions = [2n, 4n].map((id) => ({ id, error: { reason: `ERROR_${id}` } }));
            say(call, { $case: "ack", value: { ackedThrough: 5n, exceptions } });
            say(call, { $case: "ack", value: { ackedThrough: 6n } });
        }
    });
    await serving(fake, async (client) => {
        const session = await client.program({ owner: "sdn", epoch: 7n });
        assert.deepEqual([session.opened.owner, session.opened.epoch], ["sdn", 7n]);
        const answers = await Promise.all([
            session.put([route(1), route(2), route(3)]),
            session.delete([route(4), route(5)]),
            session.patch([{ key: route(6) }]),
        ]);
        assert.deepEqual(
            answers.map((changes) => changes.map(({ id, error }) => [id, error?.reason])),
            [[[1n, "ERROR_2"]], [[0n, "ERROR_4"]], []],
        );
        assert.deepEqual(ids, [1n, 2n, 3n, 4n, 5n, 6n]);
        await session.close();
        await assert.rejects(session.put([route(1)]), { code: status.CANCELLED });
        await assert.rejects(session.sync([]), { code: status.CANCELLED });
    });
});

test("many operations are sent in batches; positions count over all of them", async () => {
    const sizes: number[] = [];
    const fake = daemon((call, message) => {
        assert.ok(message.$case === "batch");
        const { ops } = message.value;
        sizes.push(ops.length);
        const last = ops.at(-1)?.id ?? 0n;
        say(call, { $case: "ack", value: { ackedThrough: last, exceptions: [{ id: last }] } });
    });
    await serving(fake, async (client) => {
        const session = await client.program();
        await session.put([route(0)]);
        async function* routes() {
            for (let number = 0; number < 2 * BATCH + 1; number++) {
                yield Promise.resolve(route(number));
            }
            await Promise.resolve();
        }
        const exceptions = await session.put(routes());
        assert.deepEqual(sizes, [1, BATCH, BATCH, 1]);
        assert.deepEqual(
            exceptions.map(({ id }) => id),
            [999n, 1999n, 2000n],
        );
        await session.close();
    });
});

test("calls that overlap a replay are sent after its end", async () => {
    const seen: string[] = [];
    const fake = daemon((call, message) => {
        seen.push(message.$case);
        if (message.$case === "batch") {
            say(call, { $case: "ack", value: { ackedThrough: message.value.ops.at(-1)?.id ?? 0n } });
        } else if (message.$case === "syncEnd") {
            const error = seen.length > 5 ? undefined : { reason: "TOO_MANY_DELETIONS", metadata: { would: "9", max: "1" } };
            say(call, { $case: "synced", value: { deleted: 9, entries: 3, error } });
        }
    });
    await serving(fake, async (client) => {
        const session = await client.program();
        const synced = session.sync(
            Array.from({ length: BATCH + 1 }, (_, number) => route(number)),
            1,
        );
        const put = session.put([route(1)]);
        await assert.rejects(synced, { reason: "TOO_MANY_DELETIONS", metadata: { would: "9", max: "1" } });
        assert.deepEqual(await put, []);
        assert.deepEqual(await session.endSync(9), { deleted: 9, entries: 3 });
        assert.deepEqual(seen, ["syncBegin", "batch", "batch", "syncEnd", "batch", "syncEnd"]);
        await session.close();
    });
});

test("a replay whose source throws has no end, and the session goes on", async () => {
    const seen: string[] = [];
    const fake = daemon((call, message) => {
        seen.push(message.$case);
        if (message.$case === "batch") {
            say(call, { $case: "ack", value: { ackedThrough: message.value.ops.at(-1)?.id ?? 0n } });
        }
    });
    await serving(fake, async (client) => {
        const session = await client.program();
        function* broken() {
            yield route(1);
            throw new Error("the inventory is gone");
        }
        await assert.rejects(session.sync(broken()), /the inventory is gone/);
        assert.deepEqual(await session.put([route(1)]), []);
        assert.deepEqual(seen, ["syncBegin", "batch"]);
        await session.close();
    });
});

test("all that wait reject with what ended the session", async () => {
    const fake = daemon((call, message) => {
        if (message.$case === "syncEnd") {
            end(call, refusal(status.ABORTED, "SUPERSEDED", { by: "43" }));
        }
    });
    await serving(fake, async (client) => {
        const session = await client.program();
        const waiting = [session.put([route(1)]), session.sync([route(2)]), session.endSync()];
        for (const one of await Promise.allSettled(waiting)) {
            assert.ok(one.status === "rejected");
            assert.deepEqual((one.reason as McastError).metadata, { by: "43" });
        }
        assert.equal((await session.ended)?.reason, "SUPERSEDED");
        await assert.rejects(session.put([route(3)]), { reason: "SUPERSEDED" });
        await assert.rejects(session.close(), { reason: "SUPERSEDED" });
    });
});

test("a daemon that does not read holds the sender back, and its end frees it", async () => {
    let taken = 0;
    const programRoutes = (call: Call) => {
        call.once("data", () => {
            call.pause();
            say(call, { $case: "opened", value: {} });
            setTimeout(() => {
                end(call, { code: status.UNAVAILABLE, details: "gone" });
            }, 500);
        });
    };
    await serving({ programRoutes }, async (client) => {
        const session = await client.program();
        function* endless() {
            for (;;) {
                taken += 1;
                yield { ...route(taken & 0xffff), cookie: "x".repeat(64) };
            }
        }
        await assert.rejects(session.put(endless()), { code: status.UNAVAILABLE });
        assert.ok(taken < 1_000_000, `${taken} operations were made although nobody takes them`);
    });
});

test("an opening that fails", async () => {
    const endings = [
        (call: Call) => {
            end(call, refusal(status.FAILED_PRECONDITION, "STALE_EPOCH", { highest: "42" }));
        },
        (call: Call) => {
            call.end();
        },
        (call: Call) => {
            say(call, { $case: "ack", value: {} });
        },
    ];
    const programRoutes = (call: Call) => {
        call.once("data", () => endings.shift()?.(call));
    };
    await serving({ programRoutes }, async (client) => {
        await assert.rejects(client.program(), { reason: "STALE_EPOCH" });
        await assert.rejects(client.program(), { code: status.UNAVAILABLE });
        await assert.rejects(client.program(), /answered the opening with ack/);
    });
});

test("a session that the daemon ends without a word is over, too", async () => {
    const fake = daemon((call) => {
        call.end();
    });
    await serving(fake, async (client) => {
        const session = await client.program();
        await assert.rejects(session.put([route(1)]), { code: status.UNAVAILABLE });
        assert.equal((await session.ended)?.code, status.UNAVAILABLE);
    });
});

test("a daemon that does not answer the opening is given up", async () => {
    const programRoutes = (call: Call) => {
        call.on("data", () => undefined);
    };
    await serving({ programRoutes }, async (client) => {
        const refused = { code: status.DEADLINE_EXCEEDED, message: /not opened within 50 ms/ };
        await assert.rejects(client.program({ timeoutMs: 50 }), refused);
    });
});
