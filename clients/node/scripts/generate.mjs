// Generates src/gen from the contract, which is ../../proto in the repository: never committed, and never edited.
// The compiler is buf: the program that BUF names, that of the repository's .venv (`make venv-test`), or one in PATH.
import { spawnSync } from "node:child_process";
import { existsSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const beside = fileURLToPath(new URL("../../../.venv/bin/buf", import.meta.url));
const buf = process.env.BUF ?? (existsSync(beside) ? beside : "buf");

rmSync(new URL("../src/gen", import.meta.url), { recursive: true, force: true });
const done = spawnSync(buf, ["generate"], { cwd: root, stdio: "inherit" });
if (done.error) {
    throw new Error(`cannot run ${buf}: install buf (https://buf.build; pip install buf-bin), or name it in BUF`, {
        cause: done.error,
    });
}
process.exitCode = done.status ?? 1;
