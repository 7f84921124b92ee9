/** Following what changes: a watch that reconnects, and goes on where it was (docs/watch.md of mcastd has the rules). */
import { Metadata, status } from "@grpc/grpc-js";
import { Backoff, type BackoffOptions } from "./backoff.js";
import { reading } from "./call.js";
import type { Stubs } from "./connection.js";
import { McastError } from "./errors.js";
import { Event_Type, WatchRequest, type Event, type WatchResponse } from "./gen/mcast/v1/services.js";

/** An object of any kind: `$case` says which, `value` is the object. */
export type WatchedObject = NonNullable<Event["object"]>;

/** What a watch tells. */
export type WatchEvent =
    /** Forget everything: a snapshot follows. */
    | { type: "reset" }
    /** New or changed. The object is whole; `coalesced` changes were merged into this one. */
    | { type: "put"; object: WatchedObject; time: Date | undefined; coalesced: number }
    /** Gone: only the fields of its key are set. */
    | { type: "delete"; object: WatchedObject; time: Date | undefined; coalesced: number }
    /** Upcalls that nobody will hear of: dropped by the kernel, or skipped because this reader was slow. */
    | { type: "upcallsLost"; byKernel: bigint; skipped: bigint }
    /** The snapshot, or the catching up, is complete; what follows is live. Comes after each connection. */
    | { type: "synced" };

/** What to watch, and how. */
export interface WatchOptions {
    /** As in the contract: kinds, selector, resumeToken, changesOnly, sampleInterval, heartbeatInterval. */
    request?: Partial<WatchRequest>;
    /** Ends the watch; its loop throws the signal's reason. */
    signal?: AbortSignal;
    /** Bounds of the delays between attempts. */
    backoff?: BackoffOptions;
    /** Hears of each broken stream, and of how long the next attempt waits. A wrong certificate is seen here alone. */
    onRetry?: (error: McastError, delayMs: number) => void;
}

/** Events for ever, over as many streams as it takes. Iterate over it once. */
export class Watch implements AsyncIterable<WatchEvent> {
    readonly #stubs: () => Stubs;
    readonly #options: WatchOptions;
    #token: string;

    /** `stubs` is asked before each connection. */
    constructor(stubs: () => Stubs, options: WatchOptions = {}) {
        this.#stubs = stubs;
        this.#options = options;
        this.#token = options.request?.resumeToken ?? "";
    }

    /** Where another watch can go on: all events up to it have been given to the loop, and handled by it. */
    get resumeToken(): string {
        return this.#token;
    }

    async *[Symbol.asyncIterator](): AsyncGenerator<WatchEvent, void, undefined> {
        const { signal, onRetry } = this.#options;
        const backoff = new Backoff(this.#options.backoff);
        for (;;) {
            const failure = yield* this.#stream(backoff);
            const delay = backoff.next(failure.retryAfterMs);
            onRetry?.(failure, delay);
            await Backoff.wait(delay, signal).catch((error: unknown) => {
                signal?.throwIfAborted(); // its reason, as everywhere
                throw error;
            });
        }
    }

    /** Tells what one stream brings, and returns why it ended; throws what no other stream would heal. */
    async *#stream(backoff: Backoff): AsyncGenerator<WatchEvent, McastError, undefined> {
        const request = WatchRequest.fromPartial({ ...this.#options.request, resumeToken: this.#token });
        const start = () => this.#stubs().events.watch(request, new Metadata());
        const messages = reading(start, this.#options.signal);
        try {
            for (;;) {
                const next = await messages.next().catch(retryable);
                if (next instanceof McastError) {
                    return next;
                }
                if (next.done) {
                    return new McastError(status.UNAVAILABLE, "the daemon has ended the watch");
                }
                backoff.reset();
                if (next.value.reset) {
                    this.#token = ""; // until the next one nothing is covered
                }
                yield* eventsOf(next.value);
                this.#token = next.value.resumeToken || this.#token;
            }
        } finally {
            await messages.return(); // cancels the call where the loop was left
        }
    }
}

/** Identifies an object among all kinds, so that what a watch tells can be kept in a Map. An upcall is none that stays: "". */
export function keyOf(object: WatchedObject): string {
    switch (object.$case) {
        case "route":
            return JSON.stringify(["route", ...routeKey(object.value)]);
        case "counters":
            return object.value.key ? JSON.stringify(["counters", ...routeKey(object.value.key)]) : "";
        case "interface":
            return JSON.stringify(["interface", object.value.name]);
        case "join":
            return JSON.stringify(["join", object.value.owner, object.value.interface, object.value.group, object.value.source]);
        case "source": {
            const { table, group, source, interface: seenOn } = object.value;
            return JSON.stringify(["source", table, group, source, seenOn]);
        }
        case "upcall":
            return "";
    }
}

/** The incoming interface is part of the identity of templates alone. */
function routeKey(key: { table: number; group: string; source: string; iif: string }): (string | number)[] {
    const exact = key.source !== "" && !key.source.includes("/") && !key.group.includes("/");
    return [key.table, key.group, key.source, exact ? "" : key.iif];
}

function retryable(error: unknown): McastError {
    if (error instanceof McastError && error.retryable) {
        return error;
    }
    throw error;
}

function* eventsOf(message: WatchResponse): Generator<WatchEvent, void, undefined> {
    if (message.reset) {
        yield { type: "reset" };
    }
    if (message.kernelUpcallsLost > 0n || message.upcallsSkipped > 0n) {
        yield { type: "upcallsLost", byKernel: message.kernelUpcallsLost, skipped: message.upcallsSkipped };
    }
    for (const { type, object, time, coalesced } of message.events) {
        // What a later contract adds, an object of a new kind or another type of event, is nothing this reader can use.
        if (object && (type === Event_Type.PUT || type === Event_Type.DELETE)) {
            yield { type: type === Event_Type.PUT ? "put" : "delete", object, time, coalesced };
        }
    }
    if (message.synced) {
        yield { type: "synced" };
    }
}
