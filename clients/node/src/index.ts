/** Client of mcastd, a multicast router for Linux that a program can drive. */
export { status } from "@grpc/grpc-js";
export { Backoff, type BackoffOptions } from "./backoff.js";
export type { CallSettings } from "./call.js";
export { McastClient, type ClientOptions, type Snapshot, type WriteSettings } from "./client.js";
export { DEFAULT_ADDRESS, type Stubs, type TlsFiles } from "./connection.js";
export { McastError, throwOnFailures, type FieldViolation } from "./errors.js";
export { Session, type Operation, type SessionOptions, type Swept, type SyncResult } from "./session.js";
export { duration, milliseconds } from "./time.js";
export { keyOf, Watch, type WatchedObject, type WatchEvent, type WatchOptions } from "./watch.js";

export type { Duration } from "./gen/google/protobuf/duration.js";
export {
    Lease_OnExpiry,
    RouteChange_Action,
    type DeepPartial,
    type Lease,
    type RouteChange,
    type WriteOptions,
    type WriteResult,
} from "./gen/mcast/v1/route_service.js";
export {
    Kind,
    type CounterSample,
    type GetStatusResponse,
    type Limits,
    type Owner,
    type Subscriber,
} from "./gen/mcast/v1/services.js";
export {
    Origin,
    RouteState,
    Source_Cause,
    Wildcard,
    type Counters,
    type Error as ItemError,
    type Interface,
    type Join,
    type Oif,
    type Route,
    type RouteKey,
    type RoutePatch,
    type RouteStatus,
    type Selector,
    type Source,
    type Upcall,
    type Vif,
} from "./gen/mcast/v1/types.js";
