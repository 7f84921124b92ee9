/** A session of a controller: routes with a lease (docs/sessions.md of mcastd has the rules). */
import { status, type ClientDuplexStream } from "@grpc/grpc-js";
import { write } from "./call.js";
import { McastError } from "./errors.js";
import {
    ProgramRoutesRequest,
    type DeepPartial,
    type Lease,
    type ProgramRoutesResponse,
    type ProgramRoutesResponse_Ack,
    type ProgramRoutesResponse_Opened,
    type RouteChange,
} from "./gen/mcast/v1/route_service.js";
import type { Route, RouteKey, RoutePatch } from "./gen/mcast/v1/types.js";

/** Operations in one message; more are sent as several. */
export const BATCH = 1000;

const OPEN_MS = 30_000;

/** Who opens a session. */
export interface SessionOptions {
    /** Whose routes; empty = the owner of the caller's socket or certificate. */
    owner?: string;
    /** Fencing number of the leader; 0 = no fencing. */
    epoch?: bigint;
    /** What becomes of the session's routes when it ends, for whatever reason; none = they stay. */
    lease?: DeepPartial<Lease>;
    /** Ends the session at once, or the attempt to open it. */
    signal?: AbortSignal;
    /** For the daemon's answer to the opening, in milliseconds; 30,000 unless set. */
    timeoutMs?: number;
}

/** One operation. */
export type Operation = { put: DeepPartial<Route> } | { patch: DeepPartial<RoutePatch> } | { delete: DeepPartial<RouteKey> };

/** What came of the end of a replay. */
export interface Swept {
    /** Routes that the sweep deleted. */
    deleted: number;
    /** Routes that the owner has now. */
    entries: number;
}

/** What came of a replay. */
export interface SyncResult extends Swept {
    /** Operations of the replay that failed, or whose routes are not PROGRAMMED. */
    exceptions: RouteChange[];
}

type Call = ClientDuplexStream<ProgramRoutesRequest, ProgramRoutesResponse>;
type Message = NonNullable<ProgramRoutesRequest["request"]>;
type Items<T> = Iterable<T> | AsyncIterable<T>;

/** Who waits for the answer to a batch. */
interface Pending {
    through: bigint;
    exceptions: RouteChange[];
    resolve: (exceptions: RouteChange[]) => void;
    reject: (error: unknown) => void;
}

/** Who waits for the answer to a SyncEnd. */
interface Sweep {
    resolve: (result: Swept) => void;
    reject: (error: unknown) => void;
}

/**
 * A session that is open. Calls may overlap: they are sent in the order in which they were made, and answered when the kernel has
 * taken them. Where the session ends, all that wait reject with the error that ended it; open another, and replay.
 */
export class Session {
    /** The daemon's answer to the opening: owner, highest epoch, incarnation of the server, number of routes. */
    readonly opened: ProgramRoutesResponse_Opened;
    /** Resolves when the session is over: with the error that ended it, or undefined after `close`. Never rejects. */
    readonly ended: Promise<McastError | undefined>;

    readonly #call: Call;
    readonly #pending: Pending[] = [];
    readonly #sweeps: Sweep[] = [];
    #turn: Promise<void> = Promise.resolve();
    #lastId = 0n;
    #closing = false;
    #over: McastError | undefined;

    private constructor(call: Call, opened: ProgramRoutesResponse_Opened) {
        this.#call = call;
        this.opened = opened;
        call.on("data", (message: ProgramRoutesResponse) => {
            this.#take(message);
        });
        this.ended = new Promise((resolve) => {
            call.on("error", (error) => {
                resolve(this.#fail(McastError.from(error)));
            });
            // After an error it says nothing new; without one the status is OK.
            call.on("end", () => {
                const error = new McastError(status.UNAVAILABLE, "the daemon has ended the session");
                resolve(this.#closing ? undefined : this.#fail(error));
            });
        });
    }

    /** Opens a session on a call that was just made; rejects where the daemon refuses it. */
    static open(call: Call, options: SessionOptions = {}): Promise<Session> {
        const { signal, owner, epoch, lease, timeoutMs = OPEN_MS } = options;
        const cancel = () => {
            call.cancel();
        };
        signal?.addEventListener("abort", cancel, { once: true });
        call.once("status", () => signal?.removeEventListener("abort", cancel));
        return new Promise<Session>((resolve, reject) => {
            const patience = setTimeout(() => {
                reject(new McastError(status.DEADLINE_EXCEEDED, `the session was not opened within ${timeoutMs} ms`));
                call.cancel();
            }, timeoutMs);
            call.once("status", () => {
                clearTimeout(patience);
            });
            const refused = (error: unknown) => {
                reject(signal?.aborted ? (signal.reason as Error) : McastError.from(error));
            };
            const done = () => {
                refused(new McastError(status.UNAVAILABLE, "the session ended before it was open"));
            };
            call.once("error", refused);
            call.once("end", done);
            call.once("data", ({ response }: ProgramRoutesResponse) => {
                call.removeListener("end", done);
                clearTimeout(patience);
                if (response?.$case === "opened") {
                    resolve(new Session(call, response.value));
                    call.removeListener("error", refused);
                } else {
                    call.cancel();
                    reject(
                        new McastError(status.INTERNAL, `the daemon answered the opening with ${response?.$case ?? "nothing"}`),
                    );
                }
            });
            call.write(ProgramRoutesRequest.fromPartial({ request: { $case: "open", value: { owner, epoch, lease } } }));
        });
    }

    /** Creates or replaces routes; resolves when the kernel has them, with those that failed or are not PROGRAMMED. */
    put(routes: Items<DeepPartial<Route>>): Promise<RouteChange[]> {
        return this.run(map(routes, (route) => ({ put: route })));
    }

    /** Adds outgoing interfaces to routes, or removes some. */
    patch(patches: Items<DeepPartial<RoutePatch>>): Promise<RouteChange[]> {
        return this.run(map(patches, (patch) => ({ patch })));
    }

    /** Deletes routes; one that is not there is no failure. */
    delete(keys: Items<DeepPartial<RouteKey>>): Promise<RouteChange[]> {
        return this.run(map(keys, (key) => ({ delete: key })));
    }

    /** Does any operations, in order. `RouteChange.id` is the position among them, from 0. */
    async run(operations: Items<Operation>): Promise<RouteChange[]> {
        return merged(await this.#inTurn(() => this.#sendAll(operations)));
    }

    /**
     * Makes the session's routes exactly these. Rejects with TOO_MANY_DELETIONS where more than `maxDeletions` would go (0 = no
     * limit); none has then gone, and the replay goes on: put what is missing and call `endSync`. Where `routes` itself throws,
     * nothing is deleted either.
     */
    async sync(routes: Items<DeepPartial<Route>>, maxDeletions = 0): Promise<SyncResult> {
        const [answers, sweep] = await this.#inTurn(async () => {
            await this.#send({ $case: "syncBegin", value: {} });
            const sent = await this.#sendAll(map(routes, (route) => ({ put: route })));
            return [sent, await this.#sweep(maxDeletions)];
        });
        const exceptions = await merged(answers);
        return { ...(await sweep.answer), exceptions };
    }

    /** Ends a replay whose end was refused before, with another limit. */
    async endSync(maxDeletions = 0): Promise<Swept> {
        const sweep = await this.#inTurn(() => this.#sweep(maxDeletions));
        return sweep.answer;
    }

    /** Ends the session in order: what was sent is answered first. The lease begins to run. */
    async close(): Promise<void> {
        await this.#inTurn(() => {
            this.#closing = true;
            this.#call.end();
            return Promise.resolve();
        });
        const error = await this.ended;
        if (error) {
            throw error;
        }
    }

    /** Ends the session at once; what is under way may have been done or not. */
    cancel(): void {
        this.#call.cancel();
    }

    /** Sends when everything that was called earlier is sent: so the order of calls is the order on the wire. */
    async #inTurn<T>(send: () => Promise<T>): Promise<T> {
        const before = this.#turn;
        let done: () => void = () => undefined;
        this.#turn = new Promise((resolve) => (done = resolve));
        await before;
        try {
            return await send();
        } finally {
            done();
        }
    }

    /** Sends operations, as fast as the daemon takes them; the answers come later. */
    async #sendAll(operations: Items<Operation>): Promise<Promise<RouteChange[]>[]> {
        const answers: Promise<RouteChange[]>[] = [];
        let count = 0;
        for await (const part of batches(operations)) {
            const { sent, acked } = this.#batch(part, count);
            count += part.length;
            answers.push(acked);
            await sent;
        }
        return answers;
    }

    #batch(operations: Operation[], first: number): { sent: Promise<void>; acked: Promise<RouteChange[]> } {
        const base = this.#lastId + 1n;
        const ops = operations.map((operation, at) => ({ id: base + BigInt(at), op: caseOf(operation) }));
        const sent = this.#send({ $case: "batch", value: { ops } });
        this.#lastId += BigInt(ops.length);
        const acked = new Promise<RouteChange[]>((resolve, reject) => {
            const renumbered = (exceptions: RouteChange[]) => {
                resolve(exceptions.map((change) => ({ ...change, id: change.id - base + BigInt(first) })));
            };
            this.#pending.push({ through: this.#lastId, exceptions: [], resolve: renumbered, reject });
        });
        acked.catch(() => undefined); // it may fail while the caller still sends, and hears of it then
        return { sent, acked };
    }

    /** Sends the end of a replay; the answer comes later. */
    async #sweep(maxDeletions: number): Promise<{ answer: Promise<Swept> }> {
        const sent = this.#send({ $case: "syncEnd", value: { maxDeletions } });
        const answer = new Promise<Swept>((resolve, reject) => {
            this.#sweeps.push({ resolve, reject });
        });
        answer.catch(() => undefined); // see #batch
        await sent;
        return { answer };
    }

    /** Resolves when there is room for the next message; throws at once where there is no session any more. */
    #send(message: DeepPartial<Message>): Promise<void> {
        if (this.#over) {
            throw this.#over;
        }
        if (this.#closing) {
            throw new McastError(status.CANCELLED, "the session is closed");
        }
        return write(this.#call, ProgramRoutesRequest.fromPartial({ request: message }));
    }

    #take({ response }: ProgramRoutesResponse): void {
        switch (response?.$case) {
            case "ack":
                this.#acknowledge(response.value);
                return;
            case "synced": {
                const { deleted, entries, error } = response.value;
                const sweep = this.#sweeps.shift();
                if (error) {
                    sweep?.reject(McastError.fromItem(error));
                } else {
                    sweep?.resolve({ deleted, entries });
                }
                return;
            }
            default: // opened comes once; what a later contract adds is not meant for us
        }
    }

    #acknowledge({ ackedThrough, exceptions }: ProgramRoutesResponse_Ack): void {
        for (const change of exceptions) {
            this.#pending.find(({ through }) => change.id <= through)?.exceptions.push(change);
        }
        for (let first = this.#pending[0]; first && first.through <= ackedThrough; first = this.#pending[0]) {
            this.#pending.shift();
            first.resolve(first.exceptions);
        }
    }

    /** Ends all waiting; returns the error that came first. */
    #fail(error: McastError): McastError {
        const first = (this.#over ??= error);
        for (const waiting of [...this.#pending.splice(0), ...this.#sweeps.splice(0)]) {
            waiting.reject(first);
        }
        return first;
    }
}

async function merged(answers: Promise<RouteChange[]>[]): Promise<RouteChange[]> {
    return (await Promise.all(answers)).flat();
}

function caseOf(operation: Operation) {
    if ("put" in operation) {
        return { $case: "put", value: operation.put } as const;
    }
    if ("patch" in operation) {
        return { $case: "patch", value: operation.patch } as const;
    }
    return { $case: "delete", value: operation.delete } as const;
}

async function* map<T, U>(items: Items<T>, change: (item: T) => U): AsyncGenerator<U, void, undefined> {
    for await (const item of items) {
        yield change(item);
    }
}

/** Gathers items into lists of at most BATCH. */
export async function* batches<T>(items: Items<T>): AsyncGenerator<T[], void, undefined> {
    let part: T[] = [];
    for await (const item of items) {
        if (part.push(item) === BATCH) {
            yield part;
            part = [];
        }
    }
    if (part.length > 0) {
        yield part;
    }
}
