/** The client: every RPC of the contract as a method, over one connection. */
import { Metadata, status, type ChannelOptions } from "@grpc/grpc-js";
import { deadline, reading, sending, unary, type CallSettings, type Unary } from "./call.js";
import { Connection, DEFAULT_ADDRESS, type Stubs, type TlsFiles } from "./connection.js";
import { McastError } from "./errors.js";
import {
    DeleteRoutesRequest,
    FlushLearnedRequest,
    ListRoutesRequest,
    PatchRoutesRequest,
    PutRoutesRequest,
    ReplaceRoutesRequest,
    type DeepPartial,
    type FlushLearnedResponse,
    type ReplaceRoutesRequest_Header,
    type WriteOptions,
    type WriteResult,
} from "./gen/mcast/v1/route_service.js";
import {
    DeleteJoinsRequest,
    ListInterfacesRequest,
    ListJoinsRequest,
    ListSourcesRequest,
    PutJoinsRequest,
    SetInterfaceRequest,
    ShutdownRequest,
    type GetStatusResponse,
    type DeleteJoinsResponse,
    type ListInterfacesResponse,
    type PutJoinsResponse,
    type ReloadConfigurationResponse,
    type SetInterfaceResponse,
} from "./gen/mcast/v1/services.js";
import type { Interface, Join, Route, RouteKey, RoutePatch, Selector, Source } from "./gen/mcast/v1/types.js";
import { batches, Session, type SessionOptions } from "./session.js";
import { Watch, type WatchOptions } from "./watch.js";

/** How to reach a daemon. */
export interface ClientOptions {
    /** Certificates; without them TCP is plain, which is for this host alone. */
    tls?: TlsFiles;
    /** Deadline of unary calls in milliseconds; 10,000 unless set. */
    timeoutMs?: number;
    /** Further options of grpc-js. */
    channel?: ChannelOptions;
}

/** Options of a write, and of the call that carries it. */
export interface WriteSettings extends CallSettings, DeepPartial<WriteOptions> {
    /** Return every change, not only the exceptions. */
    returnChanges?: boolean | undefined;
}

/** A list of one revision, and where a watch goes on from it. */
export interface Snapshot {
    routes: Route[];
    revision: bigint;
    /** For `watch({ request: { resumeToken } })`: nothing is missed, nothing told twice. */
    resumeToken: string;
}

/** Speaks to one daemon. It connects with the first call, and again whenever it must. */
export class McastClient {
    readonly #connection: Connection;
    readonly #timeoutMs: number;

    /** `address` is "unix:PATH" or "HOST:PORT". Throws where it is neither, or the certificates can't be read. */
    constructor(address: string = DEFAULT_ADDRESS, options: ClientOptions = {}) {
        this.#connection = new Connection(address, options.tls, options.channel);
        this.#timeoutMs = options.timeoutMs ?? 10_000;
    }

    /** The generated stubs, for what has no method here. */
    get stubs(): Stubs {
        return this.#connection.stubs;
    }

    /** Resolves when the daemon is connected; rejects with UNAVAILABLE after the time. Never needed before a call. */
    connect(timeoutMs: number = this.#timeoutMs): Promise<void> {
        return new Promise((resolve, reject) => {
            this.stubs.daemon.waitForReady(Date.now() + timeoutMs, (error) => {
                if (error) {
                    reject(new McastError(status.UNAVAILABLE, `no connection in ${timeoutMs} ms`, { cause: error }));
                } else {
                    resolve();
                }
            });
        });
    }

    /** Ends the connection; calls that are under way are finished. */
    close(): void {
        this.#connection.close();
    }

    /** Creates or replaces routes, at most 10,000. Items may fail alone: see `throwOnFailures`. */
    async put(routes: Iterable<DeepPartial<Route>>, settings: WriteSettings = {}): Promise<WriteResult> {
        const { returnChanges } = settings;
        const request = PutRoutesRequest.fromPartial({ routes: [...routes], options: optionsOf(settings), returnChanges });
        return resultOf(await this.#unary((...all) => this.stubs.routes.putRoutes(...all), request, settings));
    }

    /** Adds outgoing interfaces to routes, or removes some. */
    async patch(patches: Iterable<DeepPartial<RoutePatch>>, settings: WriteSettings = {}): Promise<WriteResult> {
        const request = PatchRoutesRequest.fromPartial({ patches: [...patches], options: optionsOf(settings) });
        return resultOf(await this.#unary((...all) => this.stubs.routes.patchRoutes(...all), request, settings));
    }

    /** Deletes routes by key; one that is not there is no failure. */
    delete(keys: Iterable<DeepPartial<RouteKey>>, settings: WriteSettings = {}): Promise<WriteResult> {
        return this.#delete({ keys: [...keys] }, settings);
    }

    /** Deletes the routes that match. */
    deleteMatching(selector: DeepPartial<Selector>, settings: WriteSettings = {}): Promise<WriteResult> {
        return this.#delete({ selector }, settings);
    }

    /** Deletes every route that the caller may delete. */
    deleteAll(settings: WriteSettings = {}): Promise<WriteResult> {
        return this.#delete({ all: true }, settings);
    }

    /** Makes the owner's routes exactly these, any number of them. Nothing changes before the last one is sent. */
    async replace(
        routes: Iterable<DeepPartial<Route>> | AsyncIterable<DeepPartial<Route>>,
        settings: WriteSettings & Omit<DeepPartial<ReplaceRoutesRequest_Header>, "options"> = {},
    ): Promise<WriteResult> {
        const { cookie, allowEmpty, maxDeletions, returnChanges } = settings;
        const header = { options: optionsOf(settings), cookie, allowEmpty, maxDeletions, returnChanges };
        async function* messages(): AsyncGenerator<ReplaceRoutesRequest, void, undefined> {
            yield ReplaceRoutesRequest.fromPartial({ part: { $case: "header", value: header } });
            for await (const part of batches(routes)) {
                yield ReplaceRoutesRequest.fromPartial({ part: { $case: "chunk", value: { routes: part } } });
            }
        }
        const { routes: stub } = this.stubs;
        return resultOf(await sending((...all) => stub.replaceRoutes(...all), messages(), settings));
    }

    /** Opens a session, over which a controller programs routes that have a lease. */
    async program(options: SessionOptions = {}): Promise<Session> {
        options.signal?.throwIfAborted();
        return Session.open(this.stubs.routes.programRoutes(new Metadata()), options);
    }

    /** Lists routes of one revision as they come. */
    async *list(
        request: DeepPartial<ListRoutesRequest> = {},
        settings: CallSettings = {},
    ): AsyncGenerator<Route, void, undefined> {
        for await (const chunk of this.#chunks(request, settings)) {
            yield* chunk.routes;
        }
    }

    /** Lists routes, with the token that a watch goes on from. */
    async snapshot(request: DeepPartial<ListRoutesRequest> = {}, settings: CallSettings = {}): Promise<Snapshot> {
        const snapshot: Snapshot = { routes: [], revision: 0n, resumeToken: "" };
        for await (const { routes, revision, resumeToken } of this.#chunks(request, settings)) {
            for (const route of routes) {
                snapshot.routes.push(route);
            }
            snapshot.revision = revision;
            snapshot.resumeToken = resumeToken || snapshot.resumeToken;
        }
        return snapshot;
    }

    /** Removes entries that templates have made; returns how many. */
    async flushLearned(selector: DeepPartial<Selector> = {}, settings: CallSettings = {}): Promise<number> {
        const request = FlushLearnedRequest.fromPartial({ selector });
        const answer = await this.#unary<FlushLearnedRequest, FlushLearnedResponse>(
            (...all) => this.stubs.routes.flushLearned(...all),
            request,
            settings,
        );
        return answer.removed;
    }

    /** Follows what changes, for ever: see Watch. */
    watch(options: WatchOptions = {}): Watch {
        return new Watch(() => this.stubs, options);
    }

    /** Joins groups; the answer has the joins that failed. */
    putJoins(joins: Iterable<DeepPartial<Join>>, settings: WriteSettings = {}): Promise<PutJoinsResponse> {
        const request = PutJoinsRequest.fromPartial({ joins: [...joins], options: optionsOf(settings) });
        return this.#unary((...all) => this.stubs.joins.putJoins(...all), request, settings);
    }

    /** Leaves groups; returns the revision. */
    async deleteJoins(joins: Iterable<DeepPartial<Join>>, settings: WriteSettings = {}): Promise<bigint> {
        const request = DeleteJoinsRequest.fromPartial({ joins: [...joins], options: optionsOf(settings) });
        const answer = await this.#unary<DeleteJoinsRequest, DeleteJoinsResponse>(
            (...all) => this.stubs.joins.deleteJoins(...all),
            request,
            settings,
        );
        return answer.revision;
    }

    /** Lists joins. */
    async *joins(selector: DeepPartial<Selector> = {}, settings: CallSettings = {}): AsyncGenerator<Join, void, undefined> {
        const request = ListJoinsRequest.fromPartial({ selector });
        const start = () => this.stubs.joins.listJoins(request, new Metadata(), deadline(settings.timeoutMs));
        for await (const chunk of reading(start, settings.signal)) {
            yield* chunk.joins;
        }
    }

    /** Lists interfaces: one by name, some by a glob, or all. */
    async interfaces(name = "", settings: CallSettings = {}): Promise<Interface[]> {
        const request = ListInterfacesRequest.fromPartial({ interface: name });
        const answer = await this.#unary<ListInterfacesRequest, ListInterfacesResponse>(
            (...all) => this.stubs.interfaces.listInterfaces(...all),
            request,
            settings,
        );
        return answer.interfaces;
    }

    /** Pins an interface, or sets its threshold or router discovery; fields that are not given stay as they are. */
    async setInterface(
        name: string,
        change: Pick<DeepPartial<SetInterfaceRequest>, "pinned" | "ttlThreshold" | "routerDiscovery" | "table">,
        settings: WriteSettings = {},
    ): Promise<Interface> {
        const request = SetInterfaceRequest.fromPartial({ interface: name, ...change, options: optionsOf(settings) });
        const answer = await this.#unary<SetInterfaceRequest, SetInterfaceResponse>(
            (...all) => this.stubs.interfaces.setInterface(...all),
            request,
            settings,
        );
        return present(answer.interface, "interface");
    }

    /** Lists traffic that no route forwards as it should. */
    async *sources(selector: DeepPartial<Selector> = {}, settings: CallSettings = {}): AsyncGenerator<Source, void, undefined> {
        const request = ListSourcesRequest.fromPartial({ selector });
        const start = () => this.stubs.events.listSources(request, new Metadata(), deadline(settings.timeoutMs));
        for await (const chunk of reading(start, settings.signal)) {
            yield* chunk.sources;
        }
    }

    /** Version, limits, owners, watchers. */
    status(settings: CallSettings = {}): Promise<GetStatusResponse> {
        return this.#unary((...all) => this.stubs.daemon.getStatus(...all), {}, settings);
    }

    /** Has the daemon read its configuration again, or only check it. */
    reload(settings: CallSettings & { validateOnly?: boolean } = {}): Promise<ReloadConfigurationResponse> {
        const { validateOnly = false } = settings;
        return this.#unary((...all) => this.stubs.daemon.reloadConfiguration(...all), { validateOnly }, settings);
    }

    /** Ends the daemon. */
    async shutdown(settings: CallSettings & { keepForwarding?: boolean } = {}): Promise<void> {
        const request = ShutdownRequest.fromPartial({ keepForwarding: settings.keepForwarding });
        await this.#unary((...all) => this.stubs.daemon.shutdown(...all), request, settings);
    }

    async #delete(what: DeepPartial<DeleteRoutesRequest>, settings: WriteSettings): Promise<WriteResult> {
        const request = DeleteRoutesRequest.fromPartial({ ...what, options: optionsOf(settings) });
        return resultOf(await this.#unary((...all) => this.stubs.routes.deleteRoutes(...all), request, settings));
    }

    #chunks(request: DeepPartial<ListRoutesRequest>, settings: CallSettings) {
        const whole = ListRoutesRequest.fromPartial(request);
        return reading(() => this.stubs.routes.listRoutes(whole, new Metadata(), deadline(settings.timeoutMs)), settings.signal);
    }

    #unary<Request, Response>(method: Unary<Request, Response>, request: Request, settings: CallSettings): Promise<Response> {
        return unary(method, request, { signal: settings.signal, timeoutMs: settings.timeoutMs ?? this.#timeoutMs });
    }
}

function optionsOf(settings: WriteSettings): DeepPartial<WriteOptions> {
    const { owner, epoch, validateOnly, takeOver, allOrNothing, ifRevision } = settings;
    return { owner, epoch, validateOnly, takeOver, allOrNothing, ifRevision };
}

function resultOf(response: { result: WriteResult | undefined }): WriteResult {
    return present(response.result, "result");
}

/** What the contract says is always there. */
function present<T>(value: T | undefined, field: string): T {
    if (value === undefined) {
        throw new McastError(status.INTERNAL, `the daemon's answer lacks the field ${field}`);
    }
    return value;
}
