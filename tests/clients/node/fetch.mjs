// fetch.mjs BASE [--host NAME] [--other URL]: checks with the fetch that Node has (HTTP/1.1). Trust comes from the environment alone.
import { createHash } from "node:crypto";
import { parseArgs } from "node:util";

const { values, positionals } = parseArgs({ allowPositionals: true, options: { host: { type: "string" }, other: { type: "string" }, http: { type: "string" } } });
const base = positionals[0].replace(/\/$/, "");
const host = values.host ?? new URL(base).host;
const size = 4 << 20;
const pattern = Buffer.alloc(size);
for (let i = 0; i < size; i++) pattern[i] = i % 251;
const sum = createHash("sha256").update(pattern).digest("hex");

let failed = false;
async function that(name, act) {
  try {
    await act();
    console.log(`ok ${name}`);
  } catch (error) {
    failed = true;
    console.log(`FAIL ${name}: ${error.message}${error.cause ? `: ${error.cause.message}` : ""}`.replaceAll("\n", "; ").slice(0, 300));
  }
}
function equal(what, got, want) {
  if (got !== want) throw new Error(`${what} is ${got}, not ${want}`);
}
function ask(path, options = {}) {
  return fetch(base + path, { signal: AbortSignal.timeout(30_000), redirect: "manual", ...options });
}
async function echoed(path, options) {
  const answer = await ask(path, options);
  equal("status", answer.status, 200);
  return answer.json();
}
async function uploaded(body) {
  const got = await echoed("/upload", { method: "POST", body, duplex: "half" });
  equal("length", got.bytes, size);
  equal("hash", got.sha256, sum);
}

await that("get", async () => {
  const got = await echoed("/echo/a%20b/c?x=1&y=%C3%A9", { headers: { "X-Remit-Test": 'one, two; three="four"', Cookie: "a=1; b=2" } });
  equal("path", got.path, "/echo/a%20b/c?x=1&y=%C3%A9");
  equal("host", got.host, host);
  equal("method", got.method, "GET");
  equal("protocol", got.proto, "HTTP/1.1");
  equal("header", got.headers["x-remit-test"], 'one, two; three="four"');
  equal("cookie", got.headers.cookie, "a=1; b=2");
});
await that("head", async () => {
  const answer = await ask("/echo/head", { method: "HEAD" });
  equal("status", answer.status, 200);
  equal("method", answer.headers.get("x-method"), "HEAD");
  equal("cookies", answer.headers.getSetCookie().length, 2);
});
await that("post", async () => {
  const got = await echoed("/echo/post", { method: "POST", headers: { "Content-Type": "application/json" }, body: '{"q": "ü"}' });
  equal("body", got.body, '{"q": "ü"}');
  equal("type", got.headers["content-type"], "application/json");
});
await that("methods", async () => {
  for (const method of ["PUT", "PATCH", "DELETE", "OPTIONS"]) equal("method", (await echoed("/echo/methods", { method })).method, method);
});
await that("download", async () => {
  const got = Buffer.from(await (await ask(`/bytes/${size}`)).arrayBuffer());
  equal("content is the same", got.equals(pattern), true);
});
await that("upload", () => uploaded(pattern));
await that("upload-stream", () =>
  uploaded(
    new ReadableStream({
      start(to) {
        for (let at = 0; at < size; at += 65536) to.enqueue(pattern.subarray(at, at + 65536));
        to.close();
      },
    }),
  ),
);
await that("chunked", async () => equal("lines", (await (await ask("/chunked?n=16")).text()).split("\n").length - 1, 16));
await that("events", async () => {
  const at = [];
  for await (const part of (await ask("/events?n=4&every=200")).body) {
    for (const line of Buffer.from(part).toString().split("\n")) if (line.startsWith("data: ")) at.push(performance.now());
  }
  equal("events", at.length, 4);
  equal("events come one by one", at[3] - at[0] > 400, true);
});
await that("gzip", async () => equal("text is there", (await (await ask("/gzip")).text()) === "zipped\n".repeat(1000), true));
await that("redirect", async () => equal("path", (await echoed("/redirect?to=/echo/there", { redirect: "follow" })).path, "/echo/there"));
if (values.other) {
  await that("redirect-away", async () => {
    const got = await echoed(`/redirect?to=${encodeURIComponent(values.other)}`, { redirect: "follow" });
    equal("host", got.host, new URL(values.other).host);
  });
}
await that("parallel", async () => {
  const paths = Array.from({ length: 20 }, (_, i) => `/echo/parallel/${i}`);
  const all = await Promise.all(paths.map((path) => echoed(path)));
  all.forEach((got, i) => equal("path", got.path, paths[i]));
});
await that("denied", async () => {
  const answer = await ask("/undeclared");
  equal("status", answer.status, 403);
  equal("type", answer.headers.get("content-type"), "application/problem+json");
  equal("reason", (await answer.json()).reason, "path_not_declared");
});
await that("after-denied", () => echoed("/echo/after"));
process.exitCode = failed ? 1 : 0;
