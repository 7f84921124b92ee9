/**
 * Prints new sources, and adds a route for each: what a controller begins with.
 *
 *     node dist/examples/react-to-sources.js --in eth0 --out eth1 --out eth2
 *     node dist/examples/react-to-sources.js --address router1:9443 --ca ca.crt --cert client.crt --key client.key --out eth1
 *
 * --in pins an interface, so that the kernel tells of sources on it before any route uses it.
 */
import { parseArgs } from "node:util";
import { Kind, McastClient, McastError, RouteState, Source_Cause, throwOnFailures, type Source } from "mcast-client";

const { values } = parseArgs({
    options: {
        address: { type: "string" },
        ca: { type: "string" },
        cert: { type: "string" },
        key: { type: "string" },
        owner: { type: "string", default: "react" },
        in: { type: "string", multiple: true, default: [] },
        out: { type: "string", multiple: true, default: [] },
    },
});

const { ca, cert, key, owner } = values;
const tls =
    ca === undefined ? undefined : { ca, ...(cert !== undefined && { certificate: cert }), ...(key !== undefined && { key }) };
const client = new McastClient(values.address, { ...(tls && { tls }) });

async function route({ group, source, interface: iif, table }: Source): Promise<void> {
    const oifs = values.out.filter((name) => name !== iif).map((name) => ({ interface: name }));
    try {
        const result = await client.put([{ group, source, iif, table, oifs }], { owner, returnChanges: true });
        throwOnFailures(result);
        const state = RouteState[result.changes[0]?.after?.status?.state ?? RouteState.UNSPECIFIED];
        console.log(`routed ${source} ${group} from ${iif} to ${oifs.map((oif) => oif.interface).join(" ")}: ${state}`);
    } catch (error) {
        if (!(error instanceof McastError)) {
            throw error;
        }
        // The source stays in the daemon's list, so nothing is lost: the next snapshot tells of it again.
        console.error(`cannot route ${source} ${group}: ${error.reason || error.code} ${error.message}`);
    }
}

const stopping = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => {
        stopping.abort();
    });
}

try {
    await client.connect();
    for (const name of values.in) {
        await client.setInterface(name, { pinned: true }, { owner });
    }
    const watch = client.watch({
        request: { kinds: [Kind.SOURCE] },
        signal: stopping.signal,
        onRetry: (error, delayMs) => {
            console.error(`${error.message}; trying again in ${delayMs.toFixed()} ms`);
        },
    });
    for await (const event of watch) {
        if (event.type !== "put" || event.object.$case !== "source") {
            continue;
        }
        const source = event.object.value;
        console.log(`new source ${source.source} ${source.group} on ${source.interface}: ${Source_Cause[source.cause]}`);
        if (source.cause === Source_Cause.NO_ROUTE) {
            await route(source);
        }
    }
} catch (error) {
    if (!stopping.signal.aborted) {
        throw error;
    }
} finally {
    client.close();
}
