// The 2.x line of the TypeScript SDK, `@modelcontextprotocol/client`. MODE is `legacy`, `auto`, or a version to pin.

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

import { visit } from './visit.mjs';

async function connect(url, mode, listener) {
  const capabilities = { sampling: {}, elicitation: {}, roots: {} };
  const versionNegotiation = { mode: mode === 'legacy' || mode === 'auto' ? mode : { pin: mode } };
  const client = new Client({ name: 'client2', version: '1.0.0' }, { capabilities, versionNegotiation });
  client.setRequestHandler('sampling/createMessage', ({ params }) => listener.sample(params));
  client.setRequestHandler('elicitation/create', ({ params }) => listener.elicit(params));
  client.setRequestHandler('roots/list', () => listener.roots());
  client.setNotificationHandler('notifications/message', ({ params }) => {
    listener.logged.push(String(params.data));
  });
  client.setNotificationHandler('notifications/resources/updated', ({ params }) => {
    listener.updated.push(params.uri);
  });
  await client.connect(new StreamableHTTPClientTransport(url));
  return {
    client,
    version: () => client.getNegotiatedProtocolVersion(),
    isModern: () => client.getProtocolEra() === 'modern',
    call: (params, options) => client.callTool(params, options),
    list: (method, cursor) => client.request({ method, params: cursor === undefined ? {} : { cursor } }),
  };
}

await visit(connect);
