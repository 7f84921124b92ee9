/** The generated messages and stubs as they are, for what the client does not wrap. */
export * as routes from "./gen/mcast/v1/route_service.js";
export * as services from "./gen/mcast/v1/services.js";
export * as types from "./gen/mcast/v1/types.js";
export { Duration } from "./gen/google/protobuf/duration.js";
