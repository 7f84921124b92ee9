/** A daemon that says what a test wants, on a Unix socket. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Metadata, Server, ServerCredentials, status, type UntypedServiceImplementation } from "@grpc/grpc-js";
import { routes, services } from "mcast-client/grpc";
import { McastClient } from "mcast-client";
import { Any } from "../../src/gen/google/protobuf/any.js";
import { ErrorInfo, RetryInfo, Status } from "../../src/gen/mcast/node/status.js";
import { duration } from "../../src/time.js";

/** Serves these methods (of RouteService and EventService) while `use` runs with a client. */
export async function serving(methods: UntypedServiceImplementation, use: (client: McastClient) => Promise<void>): Promise<void> {
    const directory = mkdtempSync(join(tmpdir(), "mcast-client-"));
    const server = new Server();
    for (const service of [routes.RouteServiceService, services.EventServiceService]) {
        server.addService(service, methods);
    }
    const address = `unix:${join(directory, "socket")}`;
    await new Promise<void>((resolve, reject) => {
        server.bindAsync(address, ServerCredentials.createInsecure(), (error) => {
            if (error) {
                reject(error);
            } else {
                resolve();
            }
        });
    });
    const client = new McastClient(address);
    try {
        await use(client);
    } finally {
        client.close();
        server.forceShutdown();
        rmSync(directory, { recursive: true });
    }
}

/** An error as the daemon sends it. */
export function refusal(code: status, reason: string, metadata: Record<string, string> = {}, retryAfterMs?: number) {
    const google = "type.googleapis.com/google.rpc.";
    const info = ErrorInfo.encode(ErrorInfo.fromPartial({ reason, domain: "mcastd", metadata })).finish();
    const details = [Any.fromPartial({ typeUrl: `${google}ErrorInfo`, value: Buffer.from(info) })];
    if (retryAfterMs !== undefined) {
        const retry = RetryInfo.encode({ retryDelay: duration(retryAfterMs) }).finish();
        details.push(Any.fromPartial({ typeUrl: `${google}RetryInfo`, value: Buffer.from(retry) }));
    }
    const trailer = new Metadata();
    trailer.set(
        "grpc-status-details-bin",
        Buffer.from(Status.encode(Status.fromPartial({ code, message: reason, details })).finish()),
    );
    return { code, details: `the daemon says ${reason}`, metadata: trailer };
}
