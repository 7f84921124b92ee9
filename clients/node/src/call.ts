/** Calls of grpc-js as promises and iterations: cancelled by a signal, errors as McastError. */
import {
    Metadata,
    type CallOptions,
    type ClientReadableStream,
    type ClientUnaryCall,
    type ClientWritableStream,
    type ServiceError,
} from "@grpc/grpc-js";
import { McastError } from "./errors.js";

/** What every call can be told. */
export interface CallSettings {
    /** Cancels the call; it rejects with the signal's reason. */
    signal?: AbortSignal | undefined;
    /** Deadline in milliseconds; 10,000 for unary calls, none for streams. */
    timeoutMs?: number | undefined;
}

type Callback<T> = (error: ServiceError | null, response: T) => void;

/** A unary method of a stub. */
export type Unary<Request, Response> = (
    request: Request,
    metadata: Metadata,
    options: CallOptions,
    callback: Callback<Response>,
) => ClientUnaryCall;

/** A method with a stream of requests. */
export type Sending<Request, Response> = (
    metadata: Metadata,
    options: CallOptions,
    callback: Callback<Response>,
) => ClientWritableStream<Request>;

/** Options of grpc-js for a deadline. */
export function deadline(timeoutMs: number | undefined): CallOptions {
    return timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs };
}

/** Makes a unary call. */
export function unary<Request, Response>(
    method: Unary<Request, Response>,
    request: Request,
    settings: CallSettings,
): Promise<Response> {
    return answered(settings, (options, callback) => method(request, new Metadata(), options, callback));
}

/** Sends all messages of a source, as fast as the daemon takes them, and returns the answer. */
export async function sending<Request, Response>(
    method: Sending<Request, Response>,
    messages: AsyncIterable<Request>,
    settings: CallSettings,
): Promise<Response> {
    const over = new AbortController();
    const calls: ClientWritableStream<Request>[] = [];
    const answer = answered<Response>(settings, (options, callback) => {
        const call = method(new Metadata(), options, callback);
        calls.push(call);
        return call;
    }).finally(() => {
        over.abort();
    });
    // An early refusal ends the feeding; an error of the source ends the call.
    await Promise.race([answer, ...calls.map((call) => feed(call, messages, over.signal))]);
    return answer;
}

/** Iterates over the answers of a call; leaving the loop cancels the call. */
export async function* reading<Response>(
    start: () => ClientReadableStream<Response>,
    signal?: AbortSignal,
): AsyncGenerator<Response, void, undefined> {
    signal?.throwIfAborted();
    const call = start();
    const cancel = () => {
        call.cancel();
    };
    signal?.addEventListener("abort", cancel);
    call.on("error", () => undefined); // what the cancellation below brings; the loop hears of the others itself
    try {
        for await (const message of call) {
            yield message as Response;
        }
    } catch (error) {
        signal?.throwIfAborted();
        throw McastError.from(error);
    } finally {
        signal?.removeEventListener("abort", cancel);
        call.cancel();
    }
}

/** Writes one message; resolves when there is room for the next, or when the call ends meanwhile. */
export function write<Request>(call: Writes<Request>, message: Request): Promise<void> {
    return new Promise((resolve) => {
        if (call.write(message)) {
            resolve();
            return;
        }
        const go = () => {
            for (const event of ENDS) {
                call.removeListener(event, go);
            }
            resolve();
        };
        for (const event of ENDS) {
            call.on(event, go);
        }
    });
}

const ENDS = ["drain", "error", "status", "close"] as const;

/** The writing half of a call. */
export interface Writes<Request> {
    write(message: Request): boolean;
    on(event: string, listener: () => void): unknown;
    removeListener(event: string, listener: () => void): unknown;
}

async function feed<Request>(
    call: ClientWritableStream<Request>,
    messages: AsyncIterable<Request>,
    over: AbortSignal,
): Promise<void> {
    try {
        for await (const message of messages) {
            if (over.aborted) {
                return;
            }
            await write(call, message);
        }
        call.end();
    } catch (error) {
        call.cancel(); // nothing changes before the end of the stream
        throw error;
    }
}

async function answered<Response>(
    settings: CallSettings,
    start: (options: CallOptions, callback: Callback<Response>) => { cancel(): void },
): Promise<Response> {
    const { signal } = settings;
    signal?.throwIfAborted();
    let cancel: () => void = () => undefined;
    try {
        return await new Promise<Response>((resolve, reject) => {
            const call = start(deadline(settings.timeoutMs), (error, response) => {
                if (error) {
                    reject(error);
                } else {
                    resolve(response);
                }
            });
            cancel = () => {
                call.cancel();
            };
            signal?.addEventListener("abort", cancel);
        });
    } catch (error) {
        signal?.throwIfAborted();
        throw McastError.from(error);
    } finally {
        signal?.removeEventListener("abort", cancel);
    }
}
