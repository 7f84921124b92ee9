import assert from "node:assert/strict";
import { test } from "node:test";
import { Metadata, status, type ServiceError } from "@grpc/grpc-js";
import { McastError, throwOnFailures } from "../../src/errors.js";
import { WriteResult, type DeepPartial } from "../../src/gen/mcast/v1/route_service.js";
import { RouteState } from "../../src/gen/mcast/v1/types.js";
import { refusal } from "./fake.js";

function serviceError(parts: Pick<ServiceError, "code" | "details" | "metadata">): ServiceError {
    return Object.assign(new Error("9 FAILED_PRECONDITION: text"), parts);
}

test("reason, metadata and delay come from the trailer", () => {
    const error = McastError.from(serviceError(refusal(status.FAILED_PRECONDITION, "STALE_EPOCH", { highest: "42" }, 250)));
    assert.deepEqual(
        [error.name, error.code, error.reason, error.metadata, error.retryAfterMs, error.message, error.retryable],
        ["McastError", 9, "STALE_EPOCH", { highest: "42" }, 250, "the daemon says STALE_EPOCH", false],
    );
    assert.ok(error.cause instanceof Error);
    assert.equal(McastError.from(error), error);
});

test("without a trailer there is no reason", () => {
    const error = McastError.from(serviceError({ code: status.UNAVAILABLE, details: "gone", metadata: new Metadata() }));
    assert.deepEqual([error.code, error.reason, error.metadata, error.fields, error.retryable], [14, "", {}, [], true]);
});

test("other errors are wrapped", () => {
    const cause = new TypeError("no");
    assert.deepEqual([McastError.from(cause).code, McastError.from(cause).cause], [status.UNKNOWN, cause]);
    assert.equal(McastError.from("text").message, "text");
});

function result(failed: number, ...changes: DeepPartial<WriteResult["changes"]>): WriteResult {
    return WriteResult.fromPartial({ failed, changes });
}

const busy = { code: 8, reason: "VIF_TABLE_FULL", message: "full" };

test("failed items throw", () => {
    const failed = { id: 0n, error: busy };
    const status = { state: RouteState.PENDING, lastError: { code: 9, reason: "NO_SUCH_INTERFACE" } };
    const waiting = { id: 1n, after: { status } };
    throwOnFailures(result(0, waiting));
    const thrown = (one: WriteResult) => () => {
        throwOnFailures(one);
    };
    assert.throws(thrown(result(1, waiting, failed)), { name: "McastError", reason: "VIF_TABLE_FULL" });
    assert.throws(
        thrown(result(2, failed, waiting, failed)),
        (error) => error instanceof AggregateError && error.errors.length === 2,
    );
    assert.throws(thrown(result(3, failed)), /3 items failed, the first: full/);
    assert.throws(thrown(result(1)), /not reported/);
});
