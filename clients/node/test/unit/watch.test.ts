import assert from "node:assert/strict";
import { test } from "node:test";
import { status, type ServerWritableStream } from "@grpc/grpc-js";
import { McastError } from "../../src/errors.js";
import { Event_Type, WatchResponse, type WatchRequest } from "../../src/gen/mcast/v1/services.js";
import { Source } from "../../src/gen/mcast/v1/types.js";
import { keyOf, type WatchEvent } from "../../src/watch.js";
import { refusal, serving } from "./fake.js";

type Call = ServerWritableStream<WatchRequest, WatchResponse>;

const fast = { initialMs: 1, maximumMs: 2 };

function put(group: string, resumeToken: string, type: number = Event_Type.PUT): WatchResponse {
    const object = { $case: "source", value: Source.fromPartial({ group, source: "10.0.0.1", interface: "eth0" }) } as const;
    return WatchResponse.fromPartial({ events: [{ type, object }], resumeToken });
}

function brief(event: WatchEvent): string {
    return "object" in event && event.object.$case === "source" ? `${event.type} ${event.object.value.group}` : event.type;
}

test("it goes on with the last token, whatever breaks the stream", async () => {
    const tokens: string[] = [];
    const endings = [
        refusal(status.UNAVAILABLE, "SHUTTING_DOWN"),
        refusal(status.RESOURCE_EXHAUSTED, "SLOW_CONSUMER"),
        { code: status.INTERNAL, details: "RST_STREAM" },
    ];
    const watch = (call: Call) => {
        tokens.push(call.request.resumeToken);
        const turn = tokens.length;
        call.write(WatchResponse.fromPartial({ reset: turn === 1, synced: true }));
        call.write(put(`232.0.0.${turn}`, `token ${turn}`));
        call.write(WatchResponse.fromPartial({ upcallsSkipped: 1n })); // has no token
        const ending = endings.shift();
        if (ending) {
            call.emit("error", ending);
        } else {
            call.end();
        }
    };
    const failures: number[] = [];
    await serving({ watch }, async (client) => {
        const seen: string[] = [];
        const onRetry = (error: McastError, delayMs: number) => {
            failures.push(error.code);
            assert.ok(delayMs < 2);
        };
        for await (const event of client.watch({ backoff: fast, onRetry })) {
            seen.push(brief(event));
            if (seen.at(-1) === "put 232.0.0.5") {
                break;
            }
        }
        assert.deepEqual(seen.slice(0, 6), ["reset", "synced", "put 232.0.0.1", "upcallsLost", "synced", "put 232.0.0.2"]);
    });
    assert.deepEqual(tokens, ["", "token 1", "token 2", "token 3", "token 4"]);
    assert.deepEqual(failures, [status.UNAVAILABLE, status.RESOURCE_EXHAUSTED, status.INTERNAL, status.UNAVAILABLE]);
});

test("what no repetition heals ends it", async () => {
    let calls = 0;
    const watch = (call: Call) => {
        calls += 1;
        call.emit("error", refusal(status.PERMISSION_DENIED, "NOT_ALLOWED", { need: "view" }));
    };
    await serving({ watch }, async (client) => {
        const events = client.watch({ backoff: fast })[Symbol.asyncIterator]();
        await assert.rejects(events.next(), { reason: "NOT_ALLOWED", metadata: { need: "view" } });
        assert.equal((await events.next()).done, true);
    });
    assert.equal(calls, 1);
});

test("a token covers what the loop has handled, no more", async () => {
    const watch = (call: Call) => {
        call.write(put("232.0.0.1", "first"));
        call.write(put("232.0.0.2", "second"));
    };
    await serving({ watch }, async (client) => {
        const following = client.watch({ request: { resumeToken: "stored" } });
        const tokens: string[] = [];
        for await (const event of following) {
            tokens.push(following.resumeToken);
            if (brief(event) === "put 232.0.0.2") {
                break;
            }
        }
        assert.deepEqual(tokens, ["stored", "first"]);
        assert.equal(following.resumeToken, "first");
    });
});

test("what a later contract adds is passed over", async () => {
    const unknown: number = Event_Type.DELETE + 7;
    const watch = (call: Call) => {
        call.write(put("232.0.0.1", "", unknown));
        call.write(WatchResponse.fromPartial({ events: [{ type: Event_Type.PUT }] }));
        call.write(put("232.0.0.2", "", Event_Type.DELETE));
    };
    await serving({ watch }, async (client) => {
        const { value } = await client.watch()[Symbol.asyncIterator]().next();
        assert.ok(value);
        assert.equal(brief(value), "delete 232.0.0.2");
    });
});

test("leaving the loop, and a signal, cancel the call", async () => {
    let cancelled = 0;
    let both: () => void = () => undefined;
    const gone = new Promise<void>((resolve) => (both = resolve));
    const watch = (call: Call) => {
        call.on("cancelled", () => {
            cancelled += 1;
            if (cancelled === 2) {
                both();
            }
        });
        call.write(put("232.0.0.1", ""));
    };
    await serving({ watch }, async (client) => {
        for await (const event of client.watch()) {
            assert.equal(event.type, "put");
            break;
        }
        const stop = new AbortController();
        const events = client.watch({ signal: stop.signal })[Symbol.asyncIterator]();
        await events.next();
        const next = events.next();
        stop.abort(new Error("enough"));
        await assert.rejects(next, /enough/);
        await gone;
    });
});

test("a signal ends the waiting between attempts", async () => {
    const watch = (call: Call) => {
        call.emit("error", refusal(status.UNAVAILABLE, "SHUTTING_DOWN", {}, 60_000));
    };
    await serving({ watch }, async (client) => {
        const stop = new AbortController();
        const onRetry = (_: McastError, delayMs: number) => {
            assert.equal(delayMs, 60_000);
            stop.abort(new Error("enough"));
        };
        const events = client.watch({ signal: stop.signal, onRetry })[Symbol.asyncIterator]();
        await assert.rejects(events.next(), /enough/);
    });
});

test("a snapshot that is cut short leaves no token behind", async () => {
    const tokens: string[] = [];
    const watch = (call: Call) => {
        tokens.push(call.request.resumeToken);
        if (tokens.length === 1) {
            call.write(put("232.0.0.1", "old"));
            call.write(WatchResponse.fromPartial({ reset: true }));
            call.emit("error", refusal(status.UNAVAILABLE, "SHUTTING_DOWN"));
        } else {
            call.write(put("232.0.0.2", ""));
        }
    };
    await serving({ watch }, async (client) => {
        for await (const event of client.watch({ backoff: fast })) {
            if (brief(event) === "put 232.0.0.2") {
                break;
            }
        }
    });
    assert.deepEqual(tokens, ["", ""]);
});

test("keys", () => {
    const route = { table: 0, group: "232.0.0.1", source: "10.0.0.1", iif: "eth0" };
    const key = (changed: Partial<typeof route>) =>
        keyOf({ $case: "counters", value: { key: { ...route, ...changed }, counters: undefined } });
    assert.equal(key({}), key({ iif: "eth1" }));
    for (const other of [
        { table: 1 },
        { group: "232.0.0.2" },
        { source: "" },
        { source: "10.0.0.0/24" },
        { group: "232.0.0.0/24" },
    ]) {
        assert.notEqual(key(other), key({}));
    }
    assert.notEqual(key({ source: "" }), key({ source: "", iif: "eth1" }));
    assert.notEqual(key({ group: "232.0.0.0/24" }), key({ group: "232.0.0.0/24", iif: "eth1" }));
});
