// The 1.x line of the TypeScript SDK over HTTP+SSE, which its newer line has given up: `node sse1.mjs URL`.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import * as types from '@modelcontextprotocol/sdk/types.js';

const client = new Client({ name: 'sse1', version: '1.0.0' }, { capabilities: { sampling: {} } });
client.setRequestHandler(types.CreateMessageRequestSchema, () => ({
  role: 'assistant',
  content: { type: 'text', text: 'sampled' },
  model: 'none',
}));
await client.connect(new SSEClientTransport(new URL(process.argv[2])));

const text = (result) => result.content.map((block) => block.text ?? '').join('\n');
const call = (name, args, options) => client.callTool({ name, arguments: args }, undefined, options);

const progress = [];
const slow = { duration: 0.3, steps: 3 };
await call('trigger-long-running-operation', slow, { onprogress: (p) => progress.push(p.progress) });
const cancelled = await call('trigger-long-running-operation', { duration: 60, steps: 1 }, { timeout: 300 }).then(
  () => false,
  () => true,
);
const report = {
  server: client.getServerVersion().name,
  tools: (await client.listTools()).tools.map((tool) => tool.name),
  echo: text(await call('echo', { message: 'häi\n' })),
  sampled: text(await call('trigger-sampling-request', { prompt: 'p', maxTokens: 5 })),
  progress,
  cancelled,
};
await client.close();
console.log(JSON.stringify(report));
