/** The example, on a router that streams come in on. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { RouteState } from "mcast-client";
import { all, client, setting } from "./router.js";

const daemon = client();

test("each new source gets a route", async (t) => {
    const program = fileURLToPath(new URL("../../examples/react-to-sources.js", import.meta.url));
    const options = ["--address", setting.address, "--in", "up", "--out", "down1", "--out", "down2"];
    const example = spawn(process.execPath, [program, ...options], { stdio: ["ignore", "pipe", "inherit"] });
    t.after(() => example.kill("SIGKILL"));
    const missing = new Set(
        setting.streams.map(({ source, group }) => `routed ${source} ${group} from up to down1 down2: PROGRAMMED`),
    );
    const said: string[] = [];
    for await (const line of createInterface(example.stdout)) {
        said.push(line);
        missing.delete(line);
        if (missing.size === 0) {
            break;
        }
    }
    for (const { source, group } of setting.streams) {
        assert.ok(said.includes(`new source ${source} ${group} on up: NO_ROUTE`), said.join("\n"));
    }
    const routes = await all(daemon.list({ selector: { owner: "react", states: [RouteState.PROGRAMMED] } }));
    assert.equal(routes.length, setting.streams.length);
    assert.deepEqual(await all(daemon.sources()), []);
    example.kill("SIGTERM");
    const [code] = (await once(example, "exit")) as [number | null];
    assert.equal(code, 0);
    // The routes stay until the Python side has seen the packets arrive.
    const [line] = (await once(createInterface(process.stdin), "line")) as [string];
    assert.equal(line, "arrived");
});
