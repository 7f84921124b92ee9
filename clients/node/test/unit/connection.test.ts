import assert from "node:assert/strict";
import { test } from "node:test";
import { status } from "@grpc/grpc-js";
import { McastClient, McastError } from "mcast-client";

test("an address that nothing will come of is refused at once", () => {
    for (const address of ["router1", "unix:", "", "::1:50051", "[::1]", "router1:x", "tcp:127.0.0.1:50051"]) {
        assert.throws(() => new McastClient(address), /is no address: write unix:PATH/, address);
    }
});

test("plain TCP is for this host alone", () => {
    for (const address of ["router1:50051", "10.0.0.1:50051", "[fd00::1]:50051", "127.example.net:50051"]) {
        assert.throws(() => new McastClient(address), /is another host: give tls/, address);
    }
    for (const address of ["localhost:1", "127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "unix:/nowhere"]) {
        new McastClient(address).close();
    }
});

test("a client that is closed says so", async () => {
    const client = new McastClient("unix:/nowhere");
    client.close();
    const closed = (error: unknown) =>
        error instanceof McastError &&
        error.code === status.FAILED_PRECONDITION &&
        error.message.includes("closed: make another");
    await assert.rejects(client.status(), closed);
    await assert.rejects(client.program(), closed);
    await assert.rejects(client.watch()[Symbol.asyncIterator]().next(), closed);
});
