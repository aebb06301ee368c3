// The WebSocket transport of the 1.x line of the TypeScript SDK, which is a client only.
//
//     node sdk1_websocket.mjs URL
//
// Says as JSON what it saw.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { WebSocketClientTransport } from '@modelcontextprotocol/sdk/client/websocket.js';
import * as types from '@modelcontextprotocol/sdk/types.js';

const client = new Client({ name: 'sdk1', version: '1.0.0' }, { capabilities: { elicitation: {} } });
let asked = 0;
client.setRequestHandler(types.ElicitRequestSchema, () => {
  asked += 1;
  return { action: 'accept', content: { name: 'Ana', guests: 2, seating: 'inside' } };
});
const transport = new WebSocketClientTransport(new URL(process.argv[2]));
await client.connect(transport);

const { tools } = await client.listTools();
const texts = ['a', 'b', 'c'];
const echoed = await Promise.all(texts.map((text) => client.callTool({ name: 'echo', arguments: { text } })));
const booked = await client.callTool({ name: 'book_table', arguments: { restaurant: 'Nero' } });
const cancelling = new AbortController();
const slow = client.callTool({ name: 'countdown', arguments: { seconds: 60 } }, undefined, {
  signal: cancelling.signal,
});
setTimeout(() => cancelling.abort('enough'), 100);
const cancelled = await slow.then(
  () => false,
  () => true,
);
const after = await client.callTool({ name: 'echo', arguments: { text: 'after' } });
await client.close();

console.log(
  JSON.stringify({
    server: client.getServerVersion().name,
    tools: tools.map(({ name }) => name),
    echoed: echoed.map(({ structuredContent }) => structuredContent.text),
    cancelled,
    asked,
    booked: booked.content[0].text,
    after: after.structuredContent.text,
  }),
);
