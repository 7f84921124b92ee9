import assert from "node:assert/strict";
import { test } from "node:test";
import {
    status,
    type sendUnaryData,
    type ServerReadableStream,
    type ServerUnaryCall,
    type ServerWritableStream,
} from "@grpc/grpc-js";
import {
    ListRoutesResponse,
    ReplaceRoutesResponse,
    type ListRoutesRequest,
    type ReplaceRoutesRequest,
} from "../../src/gen/mcast/v1/route_service.js";
import { refusal, serving } from "./fake.js";

type Replacing = ServerReadableStream<ReplaceRoutesRequest, ReplaceRoutesResponse>;
type Listing = ServerWritableStream<ListRoutesRequest, ListRoutesResponse>;

const route = { group: "232.0.0.1", source: "10.0.0.1", iif: "eth0" };

test("a set is sent as a header and chunks, with its end", async () => {
    const parts: (string | number | undefined)[] = [];
    const replaceRoutes = (call: Replacing, callback: sendUnaryData<ReplaceRoutesResponse>) => {
        call.on("data", ({ part }: ReplaceRoutesRequest) => {
            parts.push(part?.$case === "chunk" ? part.value.routes.length : part?.value.options?.owner);
        });
        call.on("end", () => {
            callback(null, ReplaceRoutesResponse.fromPartial({ result: { created: 2001 } }));
        });
    };
    await serving({ replaceRoutes }, async (client) => {
        const result = await client.replace(Array(2001).fill(route), { owner: "sdn" });
        assert.equal(result.created, 2001);
    });
    assert.deepEqual(parts, ["sdn", 1000, 1000, 1]);
});

test("an early refusal ends the sending", async () => {
    let made = 0;
    let finished = false;
    const replaceRoutes = (call: Replacing, callback: sendUnaryData<ReplaceRoutesResponse>) => {
        call.once("data", () => {
            callback(refusal(status.INVALID_ARGUMENT, "INVALID_VALUE", { field: "header.options.owner" }));
        });
    };
    function* endless() {
        try {
            for (;;) {
                made += 1;
                yield { ...route, cookie: "x".repeat(64) };
            }
        } finally {
            finished = true;
        }
    }
    await serving({ replaceRoutes }, async (client) => {
        await assert.rejects(client.replace(endless()), { reason: "INVALID_VALUE" });
        while (!finished) {
            await new Promise((resolve) => setTimeout(resolve, 5));
        }
    });
    assert.ok(made < 10_000_000);
});

test("a source that throws cancels the call", async () => {
    let cancelled: () => void = () => undefined;
    const gone = new Promise<void>((resolve) => (cancelled = resolve));
    let begun: () => void = () => undefined;
    const begin = new Promise<void>((resolve) => (begun = resolve));
    const replaceRoutes = (call: Replacing) => {
        call.on("cancelled", cancelled).once("data", begun);
    };
    await serving({ replaceRoutes }, async (client) => {
        async function* broken() {
            yield* Array<typeof route>(1000).fill(route);
            await begin;
            throw new Error("no more");
        }
        await assert.rejects(client.replace(broken()), /no more/);
        await gone;
    });
});

test("an answer without its result is an error", async () => {
    const putRoutes = (_: ServerUnaryCall<unknown, unknown>, callback: sendUnaryData<object>) => {
        callback(null, {});
    };
    await serving({ putRoutes }, async (client) => {
        await assert.rejects(client.put([route]), { code: status.INTERNAL, message: /lacks the field result/ });
    });
});

test("a deadline is an error with its code", async () => {
    const putRoutes = () => undefined;
    await serving({ putRoutes }, async (client) => {
        await assert.rejects(client.put([route], { timeoutMs: 20 }), { code: status.DEADLINE_EXCEEDED });
        await assert.rejects(client.put([route], { signal: AbortSignal.timeout(20) }), { name: "TimeoutError" });
    });
});

test("a list that breaks throws after what came", async () => {
    const listRoutes = (call: Listing) => {
        call.write(ListRoutesResponse.fromPartial({ routes: [route, route] }));
        call.emit("error", refusal(status.UNAVAILABLE, "SHUTTING_DOWN"));
    };
    await serving({ listRoutes }, async (client) => {
        let count = 0;
        await assert.rejects(
            async () => {
                for await (const one of client.list()) {
                    count += Number(one.group === route.group);
                }
            },
            { reason: "SHUTTING_DOWN" },
        );
        assert.equal(count, 2);
    });
});
