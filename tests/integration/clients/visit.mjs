// An SDK's client uses everything that a gateway offers, and says as JSON what came of it.
//
//     node client2.mjs URL MODE LABEL FOLDER
//
// `python_sdk.py` does the same with the Python SDK, step by step; the test compares what all of them report. The
// modules beside this one hide where the SDKs' two lines differ.

import { pathToFileURL } from 'node:url';

const MANY = 40;
const PATIENCE_MS = 90_000;

const pause = () => new Promise((resolve) => setTimeout(resolve, 50));

/** What the client answers when it is asked, and what it hears; `connect` of an adapter registers it. */
export class Listener {
  updated = [];
  logged = [];
  latest = 'nothing';

  constructor(label, folder) {
    this.label = label;
    this.folder = folder;
  }

  sample(params) {
    const content = [params.messages[0].content].flat()[0];
    const text = `${this.label} was asked: ${content.text}`;
    return { role: 'assistant', content: { type: 'text', text }, model: 'none' };
  }

  elicit(params) {
    const asked = 'sure' in params.requestedSchema.properties;
    return asked ? { action: 'accept', content: { sure: true } } : { action: 'decline' };
  }

  roots() {
    return { roots: [{ uri: pathToFileURL(this.folder).href, name: this.label }] };
  }
}

async function listed(member, ask) {
  const found = [];
  let pages = 0;
  let cursor;
  while (pages === 0 || cursor !== undefined) {
    const page = await ask(cursor);
    found.push(...page[member]);
    cursor = page.nextCursor;
    pages += 1;
  }
  return [found, pages];
}

const until = async (seen, what) => {
  while (!seen.some((each) => each.includes(what))) await pause();
  return true;
};

async function everything(sdk, listener) {
  const { label, folder } = listener;
  const { client } = sdk;
  const texts = (result) => result.content.filter((block) => block.type === 'text').map((block) => block.text).join('\n');
  const call = async (name, args = {}) => {
    listener.latest = name;
    return texts(await sdk.call({ name, arguments: args }));
  };
  const read = async (uri) => (await client.readResource({ uri })).contents[0].text;

  const progressOf = async (name, args) => {
    const seen = [];
    await sdk.call({ name, arguments: args }, { onprogress: ({ progress }) => seen.push(progress) });
    return seen;
  };

  const giveUp = async () => {
    const control = new AbortController();
    const options = { signal: control.signal, onprogress: () => control.abort() };
    await sdk.call({ name: 'notes.wait', arguments: { key: label } }, options).catch((error) => {
      if (!control.signal.aborted) throw error;
    });
    for (;;) {
      const givenUp = await sdk.call({ name: 'notes.list_given_up', arguments: {} });
      if (givenUp.structuredContent.result.includes(label)) return true;
      await pause();
    }
  };

  const many = async (tools) => {
    const one = async (number) => {
      const [name, argument] = tools[number % tools.length];
      const text = `${label} ${number}`;
      return (await call(name, { [argument]: text })).includes(text);
    };
    const right = await Promise.all(Array.from({ length: MANY }, (_, number) => one(number)));
    return right.filter(Boolean).length;
  };

  const [tools, pages] = await listed('tools', (cursor) => sdk.list('tools/list', cursor));
  const [prompts] = await listed('prompts', (cursor) => sdk.list('prompts/list', cursor));
  const [resources] = await listed('resources', (cursor) => sdk.list('resources/list', cursor));
  const [templates] = await listed('resourceTemplates', (cursor) => sdk.list('resources/templates/list', cursor));
  const complete = async (name, argument, context) => {
    const ref = { type: 'ref/prompt', name };
    return (await client.complete({ ref, argument, ...context })).completion.values;
  };
  const report = {
    version: sdk.version(),
    server: client.getServerVersion().name,
    tools: tools.map((tool) => tool.name).sort(),
    pages,
    prompts: prompts.map((prompt) => prompt.name).sort(),
    resources: resources.map((resource) => resource.uri).sort(),
    templates: templates.map((template) => template.uriTemplate).sort(),
    called: await call('notes.add_note', { text: label }),
    read: (await read('notes://all')).includes(label),
    template: await read('notes://by/ana'),
    prompt: (await client.getPrompt({ name: 'notes.review', arguments: { style: 'kind' } })).messages[0].content.text,
    completed: await complete('notes.review', { name: 'style', value: 'fr' }),
    progress: { notes: await progressOf('notes.export', { steps: 3 }) },
    cancelled: await giveUp(),
    sampled: { notes: await call('notes.summarize', { topic: 't' }) },
    elicited: { notes: await call('notes.forget', { text: label }) },
  };

  if (sdk.isModern()) {
    const subscription = await client.listen({ resourceSubscriptions: ['notes://all'] });
    await call('notes.add_note', { text: 'again' });
    await until(listener.updated, 'notes://all');
    await subscription.close();
    report.updated = [...new Set(listener.updated)].sort();
    const _meta = { 'io.modelcontextprotocol/logLevel': 'debug' };
    // all clients share a server here: whose a log message is, can only be told while nobody else calls
    while (!listener.logged.length) await sdk.call({ name: 'notes.grumble', arguments: {}, _meta }).then(pause);
    report.logged = { notes: listener.logged.includes('so many notes') };
    report.many = await many([['notes.echo', 'text']]);
    return report;
  }

  await client.setLoggingLevel('debug');
  const path = `${folder}/${label}.txt`;
  await call('files.write_file', { path, content: label });
  report.file = await call('files.read_text_file', { path });
  report.folders = await call('files.list_allowed_directories');
  report.shown = await read('demo://resource/static/document/features.md');
  const context = { context: { arguments: { department: 'Engineering' } } };
  report.people = await complete('everything.completable-prompt', { name: 'name', value: 'A' }, context);
  const uris = { everything: 'demo://resource/dynamic/text/7', remote: `demo://resource/session/${label}.gz` };
  await call('remote.gzip-file-as-resource', { name: `${label}.gz`, data: 'data:text/plain,hello' });
  await listed('resources', (cursor) => sdk.list('resources/list', cursor));
  report.logged = {};
  report.roots = {};
  for (const [name, uri] of Object.entries(uris)) {
    const steps = { duration: 0.3, steps: 3 };
    report.progress[name] = await progressOf(`${name}.trigger-long-running-operation`, steps);
    report.sampled[name] = await call(`${name}.trigger-sampling-request`, { prompt: 'p', maxTokens: 5 });
    report.elicited[name] = await call(`${name}.trigger-elicitation-request`);
    report.roots[name] = await call(`${name}.get-roots-list`);
    await client.subscribeResource({ uri });
    report.logged[name] = await until(listener.logged, `Received Subscribe Resource request for URI: ${uri}`);
    await call(`${name}.toggle-subscriber-updates`);
    await until(listener.updated, uri);
    await call(`${name}.toggle-subscriber-updates`);
    await client.unsubscribeResource({ uri });
  }
  report.updated = [...new Set(listener.updated)].sort();
  report.many = await many([['notes.echo', 'text'], ...Object.keys(uris).map((name) => [`${name}.echo`, 'message'])]);
  await call('notes.grumble');
  report.logged.notes = await until(listener.logged, 'so many notes');
  return report;
}

/** Run a visit with the SDK behind an adapter, as the command line says, and print the report. */
export async function visit(connect) {
  const [url, mode, label, folder] = process.argv.slice(2);
  const listener = new Listener(label, folder);
  setTimeout(() => {
    console.error(`not done within ${PATIENCE_MS} ms; the latest call was ${listener.latest}`);
    process.exit(1);
  }, PATIENCE_MS).unref();
  const sdk = await connect(new URL(url), mode, listener);
  console.log(JSON.stringify(await everything(sdk, listener)));
  await sdk.client.close();
  process.exit(0);
}
