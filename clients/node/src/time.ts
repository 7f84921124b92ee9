/** Durations of the contract, which JavaScript has no type for. */
import type { Duration } from "./gen/google/protobuf/duration.js";

const NANOS_PER_MS = 1_000_000;

/** Makes a Duration of milliseconds; RangeError if that is no finite number. */
export function duration(milliseconds: number): Duration {
    if (!Number.isFinite(milliseconds)) {
        throw new RangeError(`a duration is a finite number of milliseconds, not ${milliseconds}`);
    }
    const seconds = Math.trunc(milliseconds / 1000);
    // Both parts bear the same sign, as the contract asks for. "+ 0" makes 0 of -0, which would be put on the wire.
    const nanos = Math.round((milliseconds - seconds * 1000) * NANOS_PER_MS) + 0;
    if (Math.abs(nanos) === 1000 * NANOS_PER_MS) {
        return { seconds: BigInt(seconds + Math.sign(nanos)), nanos: 0 };
    }
    return { seconds: BigInt(seconds), nanos };
}

/** Returns a Duration in milliseconds, as precise as a number can be. */
export function milliseconds(value: Duration): number {
    return Number(value.seconds) * 1000 + value.nanos / NANOS_PER_MS;
}
