// The 1.x line of the TypeScript SDK, `@modelcontextprotocol/sdk`: revisions with a handshake only.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import * as types from '@modelcontextprotocol/sdk/types.js';

import { visit } from './visit.mjs';

const RESULTS = {
  'tools/list': types.ListToolsResultSchema,
  'prompts/list': types.ListPromptsResultSchema,
  'resources/list': types.ListResourcesResultSchema,
  'resources/templates/list': types.ListResourceTemplatesResultSchema,
};

async function connect(url, _mode, listener) {
  const capabilities = { sampling: {}, elicitation: {}, roots: {} };
  const client = new Client({ name: 'sdk1', version: '1.0.0' }, { capabilities });
  client.setRequestHandler(types.CreateMessageRequestSchema, ({ params }) => listener.sample(params));
  client.setRequestHandler(types.ElicitRequestSchema, ({ params }) => listener.elicit(params));
  client.setRequestHandler(types.ListRootsRequestSchema, () => listener.roots());
  client.setNotificationHandler(types.LoggingMessageNotificationSchema, ({ params }) => {
    listener.logged.push(String(params.data));
  });
  client.setNotificationHandler(types.ResourceUpdatedNotificationSchema, ({ params }) => {
    listener.updated.push(params.uri);
  });
  const transport = new StreamableHTTPClientTransport(url);
  await client.connect(transport);
  return {
    client,
    version: () => transport.protocolVersion,
    isModern: () => false,
    call: (params, options) => client.callTool(params, undefined, options),
    list: (method, cursor) => client.request({ method, params: { cursor } }, RESULTS[method]),
  };
}

await visit(connect);
