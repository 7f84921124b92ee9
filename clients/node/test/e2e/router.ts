/** The running daemon that tests/clients/test_node.py of the repository has started: a router with interfaces up, down1, down2. */
import { readFileSync } from "node:fs";
import { after, before } from "node:test";
import { McastClient, type DeepPartial, type Route, type TlsFiles } from "mcast-client";

/** What the Python side says, as JSON in MCASTD_TEST. */
interface Setting {
    /** Address of the daemon. */
    address: string;
    /** Pid of its keeper. */
    pid: number;
    /** Sources of the streams that are sent, by family, and their groups. */
    streams: { source: string; group: string }[];
    /** Its listener with TLS, and the certificates of a client "node" and of one that nobody knows. */
    tls: { address: string; known: TlsFiles; unknown: TlsFiles; strange: TlsFiles };
}

const text = process.env.MCASTD_TEST;
if (text === undefined) {
    throw new Error("these tests need a daemon: run tests/clients/test_node.py of the repository");
}

export const setting = JSON.parse(text) as Setting;

/** Both families. */
export const FAMILIES = [
    { name: "IPv4", source: "10.9.0.1", group: (number: number) => `232.1.${number >> 8}.${number & 255}` },
    { name: "IPv6", source: "fd00:9::1", group: (number: number) => `ff3e::1:${(number + 1).toString(16)}` },
];

/** A client for the tests of a file. */
export function client(): McastClient {
    const made = new McastClient(setting.address);
    before(() => made.connect(10_000));
    after(async () => {
        await made.deleteAll();
        made.close();
    });
    return made;
}

/** A route from up to interfaces. */
export function route(group: string, source: string, ...oifs: string[]): DeepPartial<Route> {
    return { group, source, iif: "up", oifs: oifs.map((name) => ({ interface: name })) };
}

/** `kill -9` of the server, which the keeper starts again. */
export function killServer(): void {
    const { pid } = setting;
    for (const child of readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ")) {
        if (readFileSync(`/proc/${child}/cmdline`, "utf8").includes("mcastd.runtime.server")) {
            process.kill(Number(child), "SIGKILL");
            return;
        }
    }
    throw new Error(`the keeper ${pid} has no server`);
}

/** All of an iteration. */
export async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
    const found: T[] = [];
    for await (const item of items) {
        found.push(item);
    }
    return found;
}

/** Waits until something holds. */
export async function until(condition: () => Promise<boolean>, timeoutMs = 10_000): Promise<void> {
    const end = Date.now() + timeoutMs;
    while (!(await condition())) {
        if (Date.now() > end) {
            throw new Error(`it does not hold after ${timeoutMs} ms: ${String(condition)}`);
        }
        await new Promise((resolve) => setTimeout(resolve, 10));
    }
}
