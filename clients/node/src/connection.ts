/** The channel to a daemon: addresses, certificates, and what grpc-js is to do about connections. */
import { readFileSync, statSync } from "node:fs";
import { BlockList, isIP } from "node:net";
import { Channel, credentials, status, type ChannelCredentials, type ChannelOptions } from "@grpc/grpc-js";
import { McastError } from "./errors.js";
import { RouteServiceClient } from "./gen/mcast/v1/route_service.js";
import { DaemonServiceClient, EventServiceClient, InterfaceServiceClient, JoinServiceClient } from "./gen/mcast/v1/services.js";

/** Where `connect` and McastClient look for a daemon unless told otherwise. */
export const DEFAULT_ADDRESS = "unix:/run/mcastd/mcastd.sock";

/** Files in PEM for a daemon that is spoken to over TCP. They are read again when they change. */
export interface TlsFiles {
    /** Certificates of the authority that signed the daemon's. */
    ca: string;
    /** Certificate of this client, with those between it and its authority. */
    certificate?: string;
    /** Its private key. */
    key?: string;
    /** Name to look for in the daemon's certificate, where it is not the one in the address. */
    serverName?: string;
}

/** Stubs of all services, over one connection. */
export interface Stubs {
    readonly routes: RouteServiceClient;
    readonly joins: JoinServiceClient;
    readonly interfaces: InterfaceServiceClient;
    readonly events: EventServiceClient;
    readonly daemon: DaemonServiceClient;
}

const OPTIONS: ChannelOptions = {
    // A peer that is gone without a word is found in 15 s; the daemon allows a ping every 5 s.
    "grpc.keepalive_time_ms": 10_000,
    "grpc.keepalive_timeout_ms": 5_000,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1_000,
};

/** A channel and its stubs; another one where the certificates have changed. */
export class Connection {
    readonly #address: string;
    readonly #tls: TlsFiles | undefined;
    readonly #options: ChannelOptions;
    #channel: Channel;
    #stubs: Stubs;
    #stamp = "";
    #warned = "";
    #closed = false;

    /** `address` is "unix:PATH" or "HOST:PORT"; another host needs `tls`. Throws what reading the files throws. */
    constructor(address: string, tls?: TlsFiles, options: ChannelOptions = {}) {
        checkAddress(address, tls);
        this.#address = address;
        this.#tls = tls;
        this.#options = { ...OPTIONS, ...options };
        if (tls?.serverName !== undefined) {
            this.#options["grpc.ssl_target_name_override"] = tls.serverName;
            this.#options["grpc.default_authority"] = tls.serverName;
        }
        this.#stamp = stampOf(tls);
        this.#channel = this.#open();
        this.#stubs = stubsOf(address, this.#channel);
    }

    /** The stubs to make the next call with. */
    get stubs(): Stubs {
        if (this.#closed) {
            throw new McastError(status.FAILED_PRECONDITION, `the client of ${this.#address} is closed: make another`);
        }
        this.#renew();
        return this.#stubs;
    }

    /** Ends the connection once no call uses it any more; there are no others after it. */
    close(): void {
        this.#closed = true;
        this.#channel.close();
    }

    /** Takes files that have changed; while those are of no use, as between the writing of one and the next, the last good ones stay. */
    #renew(): void {
        try {
            const stamp = this.#tls ? stampOf(this.#tls, this.#stamp) : this.#stamp;
            if (stamp === this.#stamp) {
                return;
            }
            this.#stamp = stamp;
            const old = this.#channel;
            this.#channel = this.#open();
            this.#stubs = stubsOf(this.#address, this.#channel);
            old.close(); // calls that are under way end on the old one
        } catch (error) {
            const said = error instanceof Error ? error.message : String(error);
            if (said !== this.#warned) {
                this.#warned = said;
                process.emitWarning(`${this.#address}: ${said}; going on with the last good certificates`, { code: "MCAST_TLS" });
            }
        }
    }

    #open(): Channel {
        return new Channel(this.#address, credentialsOf(this.#tls), this.#options);
    }
}

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet("127.0.0.0", 8, "ipv4");
LOOPBACK.addAddress("::1", "ipv6");

/** Says at once what no connection will ever come of: a daemon takes plain TCP from its own host alone. */
function checkAddress(address: string, tls: TlsFiles | undefined): void {
    if (/^unix:./.test(address)) {
        return;
    }
    const [, bracketed, named] = /^(?:\[([^\]]+)\]|([^:]+)):[0-9]+$/.exec(address) ?? [];
    const host = bracketed ?? named;
    if (host === undefined) {
        throw new TypeError(`${JSON.stringify(address)} is no address: write unix:PATH, HOST:PORT or [IPV6]:PORT`);
    }
    const family = isIP(host);
    const local = host === "localhost" || (family !== 0 && LOOPBACK.check(host, family === 4 ? "ipv4" : "ipv6"));
    if (!tls && !local) {
        throw new TypeError(`${address} is another host: give tls with ca, certificate and key`);
    }
}

function credentialsOf(tls: TlsFiles | undefined): ChannelCredentials {
    if (!tls) {
        return credentials.createInsecure();
    }
    if ((tls.certificate === undefined) !== (tls.key === undefined)) {
        throw new TypeError("tls: certificate and key go together, only one of them is given");
    }
    const read = (path: string | undefined) => (path === undefined ? null : readFileSync(path));
    return credentials.createSsl(readFileSync(tls.ca), read(tls.key), read(tls.certificate));
}

/** Identifies the files' present content; `known` where they can't all be read now, as while they are being replaced. */
function stampOf(tls: TlsFiles | undefined, known?: string): string {
    const files = tls ? [tls.ca, tls.certificate, tls.key].filter((path) => path !== undefined) : [];
    const states = files.map((path) => statSync(path, { bigint: true, throwIfNoEntry: false }));
    if (known !== undefined && states.includes(undefined)) {
        return known;
    }
    return states.map((state) => (state ? `${state.ino}:${state.size}:${state.mtimeNs}` : "")).join();
}

function stubsOf(address: string, channel: Channel): Stubs {
    const made = credentials.createInsecure(); // not looked at: the channel has its own
    const options = { channelOverride: channel };
    return {
        routes: new RouteServiceClient(address, made, options),
        joins: new JoinServiceClient(address, made, options),
        interfaces: new InterfaceServiceClient(address, made, options),
        events: new EventServiceClient(address, made, options),
        daemon: new DaemonServiceClient(address, made, options),
    };
}
