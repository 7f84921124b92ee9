/** When to try again: full jitter, so that a thousand clients of a daemon that restarts do not all come back at once. */
import { setTimeout as sleep } from "node:timers/promises";

/** Bounds of the delays between two attempts, in milliseconds. */
export interface BackoffOptions {
    /** Upper bound of the first delay; 100 unless set. */
    initialMs?: number;
    /** Upper bound of every delay; 10,000 unless set. */
    maximumMs?: number;
}

/** Delays that are drawn from 0 to a bound, which doubles with each of them. */
export class Backoff {
    readonly #initial: number;
    readonly #maximum: number;
    readonly #random: () => number;
    #attempts = 0;

    /** `random` draws from 0 up to 1, as Math.random does. */
    constructor(options: BackoffOptions = {}, random: () => number = Math.random) {
        this.#initial = options.initialMs ?? 100;
        this.#maximum = options.maximumMs ?? 10_000;
        this.#random = random;
        if (!(this.#initial > 0 && this.#maximum >= this.#initial)) {
            throw new RangeError(
                `backoff: initialMs (${this.#initial}) must be above 0, and at most maximumMs (${this.#maximum})`,
            );
        }
    }

    /** Draws the next delay, in milliseconds; never below `atLeast`. */
    next(atLeast = 0): number {
        const bound = Math.min(this.#maximum, this.#initial * 2 ** this.#attempts);
        this.#attempts += 1;
        return Math.max(atLeast, this.#random() * bound);
    }

    /** Begins with the first bound again: something has come through. */
    reset(): void {
        this.#attempts = 0;
    }

    /** Waits; rejects with AbortError when the signal says so. */
    static async wait(delay: number, signal?: AbortSignal): Promise<void> {
        await sleep(delay, undefined, signal ? { signal } : {});
    }
}
