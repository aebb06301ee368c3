// An MCP server (2026-07-28) over HTTP/2, on Node's own implementation (nghttp2), with TLS and ALPN.
// Arguments: certificate, key. Prints its port. What a call does is its tool's name.
import { readFileSync } from "node:fs";
import http2 from "node:http2";

const [cert, key] = process.argv.slice(2, 4).map((name) => readFileSync(name));
const server = http2.createSecureServer({ cert, key, settings: { maxConcurrentStreams: 10 } });
let cancelled = 0;
let refused = 0;
let sessions = 0;
let open = 0;
let most = 0;

const tools = {
  echo: (stream, request, answer) => answer(request.params.arguments),
  counts: (stream, request, answer) => answer({ cancelled, refused, sessions, most }),
  slow: (stream, request, answer) => setTimeout(() => answer("at last"), 200),
  never: (stream) => stream.on("aborted", () => (cancelled += 1)),
  refuse: (stream, request, answer) => {
    refused += 1;
    if (refused % 2) stream.close(http2.constants.NGHTTP2_REFUSED_STREAM);
    else answer("taken");
  },
  leave: (stream, request, answer) => {
    stream.session.close(); // GOAWAY; what is under way ends
    setTimeout(() => answer("after goodbye"), 100);
  },
  big: (stream, request, answer) => answer("b".repeat(request.params.arguments)),
  events: (stream, request) => {
    stream.respond({ ":status": 200, "content-type": "text/event-stream" });
    const say = (message) => stream.write(`data: ${JSON.stringify({ jsonrpc: "2.0", ...message })}\n\n`);
    for (let step = 0; step < 3; step += 1)
      say({ method: "notifications/message", params: { level: "info", data: step } });
    say({ id: request.id, result: { resultType: "complete", value: "told" } });
    stream.end();
  },
};

server.on("session", () => (sessions += 1));
server.on("stream", (stream) => {
  open += 1;
  most = Math.max(most, open);
  const parts = [];
  stream.on("close", () => (open -= 1));
  stream.on("error", () => {});
  stream.on("data", (part) => parts.push(part));
  stream.on("end", () => {
    const request = JSON.parse(Buffer.concat(parts));
    const answer = (value) => {
      if (stream.destroyed) return;
      stream.respond({ ":status": 200, "content-type": "application/json" });
      stream.end(JSON.stringify({ jsonrpc: "2.0", id: request.id, result: { resultType: "complete", value } }));
    };
    tools[request.params.name](stream, request, answer);
  });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.on("end", () => process.exit(0)).resume();
