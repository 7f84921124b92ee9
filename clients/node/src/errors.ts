/** What goes wrong, with the reason and metadata that the daemon gives (docs/errors.md of mcastd has the table). */
import { status, type ServiceError } from "@grpc/grpc-js";
import { BadRequest, ErrorInfo, RetryInfo, Status } from "./gen/mcast/node/status.js";
import type { WriteResult } from "./gen/mcast/v1/route_service.js";
import type { Error as ItemError } from "./gen/mcast/v1/types.js";
import { milliseconds } from "./time.js";

const DETAILS = "grpc-status-details-bin";
const TYPE_PREFIX = "type.googleapis.com/google.rpc.";

/** Codes that no repetition heals: somebody has to change the request, the rights or the program. */
const FINAL = new Set<number>([
    status.INVALID_ARGUMENT,
    status.NOT_FOUND,
    status.ALREADY_EXISTS,
    status.PERMISSION_DENIED,
    status.UNAUTHENTICATED,
    status.FAILED_PRECONDITION,
    status.OUT_OF_RANGE,
    status.UNIMPLEMENTED,
    status.ABORTED,
]);

/** What an error knows beside its message. */
export interface ErrorParts {
    reason?: string;
    metadata?: Record<string, string>;
    fields?: FieldViolation[];
    retryAfterMs?: number | undefined;
    cause?: unknown;
}

/** A field that the daemon does not take. */
export interface FieldViolation {
    /** Its path, with the names of the contract: "routes[3].oifs[1].ttl_threshold". */
    field: string;
    /** What is wrong with it. */
    description: string;
}

/** An RPC, a session or one item of a request that failed. */
export class McastError extends Error {
    /** Code of gRPC: a value of `status` of @grpc/grpc-js. */
    readonly code: status;
    /** Stable word to compare, such as "OWNED_BY_OTHER"; empty where gRPC itself answered. */
    readonly reason: string;
    /** What the message mentions, by key; numbers are text. */
    readonly metadata: Readonly<Record<string, string>>;
    /** Fields of the request that are meant. */
    readonly fields: readonly FieldViolation[];
    /** How long the daemon asks to wait before another attempt, in milliseconds. */
    readonly retryAfterMs: number | undefined;

    constructor(code: status, message: string, parts: ErrorParts = {}) {
        super(message, "cause" in parts ? { cause: parts.cause } : undefined);
        this.name = "McastError";
        this.code = code;
        this.reason = parts.reason ?? "";
        this.metadata = parts.metadata ?? {};
        this.fields = parts.fields ?? [];
        this.retryAfterMs = parts.retryAfterMs;
    }

    /** Whether the same call may succeed later without anybody changing anything. */
    get retryable(): boolean {
        return !FINAL.has(this.code);
    }

    /** Makes one of what @grpc/grpc-js reports; whatever else it is given it returns or wraps. */
    static from(error: unknown): McastError {
        if (error instanceof McastError) {
            return error;
        }
        if (!isServiceError(error)) {
            return new McastError(status.UNKNOWN, error instanceof Error ? error.message : String(error), { cause: error });
        }
        const details = error.metadata.get(DETAILS).find((value) => Buffer.isBuffer(value));
        return new McastError(error.code, error.details || error.message, { ...readDetails(details), cause: error });
    }

    /** Makes one of the error of an item: `RouteChange.error`, `RouteStatus.lastError`, `Join.error`, `Synced.error`. */
    static fromItem(error: ItemError): McastError {
        // eslint-disable-next-line @typescript-eslint/no-unsafe-enum-assignment -- the contract says that it is one
        return new McastError(error.code, error.message, { reason: error.reason, metadata: error.metadata });
    }
}

/** Throws if items of a write failed: the error of the only one, or an AggregateError. A route that waits for an interface did not. */
export function throwOnFailures(result: WriteResult): void {
    if (result.failed === 0) {
        return;
    }
    const errors = result.changes.flatMap((change) => (change.error ? [McastError.fromItem(change.error)] : []));
    const [first] = errors;
    if (first && errors.length === 1 && result.failed === 1) {
        throw first;
    }
    throw new AggregateError(errors, `${result.failed} items failed, the first: ${first?.message ?? "not reported"}`);
}

function isServiceError(error: unknown): error is ServiceError {
    return error instanceof Error && "code" in error && typeof error.code === "number" && "metadata" in error;
}

function readDetails(trailer: string | Buffer | undefined): ErrorParts {
    if (!Buffer.isBuffer(trailer)) {
        return {};
    }
    const parts: ErrorParts = {};
    for (const { typeUrl, value } of Status.decode(trailer).details) {
        if (typeUrl === `${TYPE_PREFIX}ErrorInfo`) {
            const info = ErrorInfo.decode(value);
            parts.reason = info.reason;
            parts.metadata = info.metadata;
        } else if (typeUrl === `${TYPE_PREFIX}BadRequest`) {
            parts.fields = BadRequest.decode(value).fieldViolations;
        } else if (typeUrl === `${TYPE_PREFIX}RetryInfo`) {
            const delay = RetryInfo.decode(value).retryDelay;
            parts.retryAfterMs = delay && milliseconds(delay);
        }
    }
    return parts;
}
