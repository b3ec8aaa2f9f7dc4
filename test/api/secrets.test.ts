/** Secrets are planted wherever one can come in, things go wrong, and then everything that comes out is searched. */
import { randomBytes } from 'node:crypto';
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { pollUntil } from '../../src/runtime/wait.js';
import { type FileServer, startFileServer } from '../support/fileServer.js';
import { ask, greet } from '../support/raw.js';
import { taskRequest } from '../support/rest.js';
import { startWorld, type World } from '../support/world.js';

const secret = (name: string) => `${name}-${randomBytes(8).toString('hex')}`;
const planted: Record<string, string> = {
  ...{ token: secret('tok'), wrongToken: secret('wrong'), pathToken: secret('path'), socketToken: secret('sock') },
  ...{ prompt: secret('prompt'), brokenBody: secret('body'), variable: secret('variable'), literal: secret('literal') },
  ...{ apiKeyFlag: secret('flag'), hfTokenFlag: secret('hfflag'), hfToken: secret('hfenv'), plainEnv: secret('mykey') },
  ...{ wrongKey: secret('key'), cookie: secret('cookie'), correlation: secret('corr'), signedUrl: secret('signed') },
  ...{ userinfo: secret('user'), query: secret('query'), endpoint: secret('endpoint'), bearer: secret('bearer') },
};

/** An engine that says all it knows, and dies of it. */
const LEAKY = `#!/bin/sh
echo "starting with: $0 $*"
echo "env: HF_TOKEN=$HF_TOKEN and $MY_SERVICE_KEY"
echo "in words: $HF_TOKEN and $MY_SERVICE_KEY"
echo "GET https://u:${planted.userinfo}@host/x?token=${planted.query}"
echo "Authorization: Bearer ${planted.bearer}"
echo "error: cannot use $HF_TOKEN with $*" >&2
exit 1
`;

const config = (folder: string, host: string) => `
network: { allow_hosts: ["${host}"] }
gpu: { mode: simulated, devices: [{ name: Big, memory_bytes: 25769803776 }] }
pools:
  - id: good
    engine: llamacpp
    model: sim-7b
    devices: [0]
    provisioning:
      mode: simulated
      flags: []
      env: { HF_TOKEN: "${planted.hfToken}" }
      simulated: { tokens_per_second: 0, first_token_ms: 0, load_ms: 0, vram_bytes: 1073741824 }
  - id: leaky
    engine: vllm
    model: some/model
    devices: [0]
    provisioning:
      mode: binary
      binary: { url: "file://${join(folder, 'leaky.sh')}" }
      flags: [--api-key, "${planted.apiKeyFlag}", "--hf-token=${planted.hfTokenFlag}"]
      env: { HF_TOKEN: "${planted.hfToken}", MY_SERVICE_KEY: "${planted.plainEnv}" }
  - id: away
    engine: llamacpp
    model: sim-7b
    endpoint: "http://127.0.0.1:9/?api_key=${planted.endpoint}"
    provisioning: { mode: external }
`;

let folder: string;
let world: World;
let files: FileServer;
const answers: string[] = [];
const BEARER = { authorization: `Bearer ${planted.token}` };
const JSON_BODY = { 'content-type': 'application/json' };

async function call(path: string, body?: unknown, headers: Record<string, string> = BEARER): Promise<string> {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  const {
    status,
    text: answer,
    headers: got,
  } = await ask(world.url, {
    path,
    headers: { ...headers, ...(body !== undefined && JSON_BODY) },
    ...(body !== undefined && { method: 'POST', body: text }),
  });
  answers.push(`${status} ${JSON.stringify(got)} ${answer}`);
  return answer;
}

const throughGraphQL = (query: string, variables: object = {}) => call('/graphql', { query, variables });

const EVERYTHING = `{
  pools {
    name modelRef lastError { code message fix } notReadyBecause { code message fix } provisioningPlan { buildRef steps { __typename } obstacles { code message fix } }
    crashes(first: 5) { edges { node { message fix fault lastLines launchArgs flagChanges { __typename } } } }
    events(first: 50) { edges { node { message } } }
    replicas { name reasons: state logs(lines: 100) { text } lastCrash { message launchArgs lastLines } }
  }
  preparedEngines { flags binaryPath buildRef }
}`;

async function traffic(): Promise<void> {
  const task = taskRequest({ prompt: planted.prompt, max_tokens: 4 });
  await call('/v1/tasks', task);
  await call(`/v1/tasks/${task.task_id}/stream`);
  const model = `https://u:${planted.userinfo}@host/m.gguf?token=${planted.query}`;
  await call('/v1/tasks', taskRequest({ prompt: planted.prompt, model_ref: model }));
  await call('/v1/tasks', taskRequest({ prompt: `${planted.prompt} `.repeat(2000) }));
  await call('/v1/tasks', { ...taskRequest(), prompt: [planted.prompt] });
  await call('/v1/tasks', { ...task, prompt: `${planted.prompt} changed` });
  await call('/v1/tasks', `{"prompt": "${planted.brokenBody}`);
  await call('/v1/capabilities', undefined, { authorization: `Bearer ${planted.wrongToken}` });
  await call('/v1/capabilities', undefined, { 'x-api-key': planted.wrongKey ?? '' });
  await call('/v1/capabilities', undefined, { ...BEARER, cookie: `session=${planted.cookie}` });
  // One that is no id is not taken for one.
  await call('/v1/capabilities', undefined, { ...BEARER, 'x-correlation-id': `my id ${planted.correlation}` });
  await call(`/v1/nothing?token=${planted.pathToken}`);
  await throughGraphQL('mutation ($i: SubmitTaskInput!) { submitTask(input: $i) { __typename } }', {
    i: { pool: 'good', prompt: { text: planted.variable }, maxTokens: planted.variable },
  });
  await throughGraphQL(
    `mutation { submitTask(input: { pool: "good", prompt: "${planted.literal}", maxTokens: "x" }) { id } }`,
  );
  await throughGraphQL(`mutation { submitTask(input: { pool: "good", prompt: "${planted.literal}`);
  await call('/graphql', `{"query": "{ ${planted.brokenBody}`);
  await throughGraphQL('mutation ($i: SubmitTaskInput!) { submitTask(input: $i) { __typename } }', {
    i: { pool: 'good', prompt: { text: `a; ${planted.variable}` } },
  });
  await throughGraphQL(
    `mutation { submitTask(input: { pool: "good", prompt: ["${planted.literal}"], priority: "${planted.literal}" }) { __typename } }`,
  );
  await throughGraphQL('query ($p: TaskPriority) { __typename }', { p: planted.variable?.repeat(3) });
  const socket = await greet(world.url, { params: { token: planted.socketToken } });
  answers.push(JSON.stringify(socket));
}

/** Fetches from a signed URL, which does not work out. */
async function staging(): Promise<void> {
  const model = { id: 'signed', digest: `sha256:${'0'.repeat(64)}` };
  const source_url = `${files.url}/gone.gguf?X-Amz-Signature=${planted.signedUrl}`;
  const headers = { ...BEARER, ...JSON_BODY };
  // The entry has what it was given; its reader is the operator.
  const body = JSON.stringify({ ...model, source_url });
  expect((await ask(world.url, { method: 'POST', path: '/v1/catalog/models', headers, body })).status).toBe(201);
  const shown = 'id state detail error { code message fix }';
  const begun = await throughGraphQL(
    `mutation { stageCatalogModel(input: { modelId: "signed" }) { ... on StagingAccepted { staging { ${shown} } } ... on Refusal { message } } }`,
  );
  const id = /"id":"([^"]+)"/.exec(begun)?.[1];
  const query = `query ($id: ID!) { node(id: $id) { ... on ModelStaging { ${shown} } } }`;
  const told = async () => (await throughGraphQL(query, { id })).includes('gone.gguf?… answers 404');
  expect(await pollUntil(told, { everyMs: 50, deadlineMs: 15_000 })).toBe(true);
}

beforeAll(async () => {
  files = await startFileServer((_request, response) => void response.writeHead(404).end());
  folder = await mkdtemp(join(tmpdir(), 'llama-orch-leaky-'));
  await writeFile(join(folder, 'leaky.sh'), LEAKY);
  await chmod(folder, 0o755);
  await chmod(join(folder, 'leaky.sh'), 0o755);
  const env = { AUTH_TOKEN: planted.token ?? '' };
  world = await startWorld({ config: config(folder, files.host), env, expectNotReady: true });
  planted.database = new URL(world.database.url).password;
  const ready = async () => (await call('/ready', undefined, {})).includes('"status":"ready"');
  expect(await pollUntil(ready, { everyMs: 50, deadlineMs: 20_000 })).toBe(true);
  const crashed = async () => (await world.database.query('SELECT 1 FROM crash_records')).length > 0;
  expect(await pollUntil(crashed, { everyMs: 50, deadlineMs: 20_000 })).toBe(true);
  await traffic();
  await staging();
});
afterAll(async () => {
  await world?.[Symbol.asyncDispose]();
  await files?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

/** Which secrets are in a text, by their names. */
function found(text: string, but: readonly string[] = []): string[] {
  const names = Object.keys(planted).filter((name) => (planted[name] ?? '') !== '' && !but.includes(name));
  return names.filter((name) => text.includes(planted[name] ?? ''));
}

/** What a table has to hold, or nothing could be done with it. */
const KEPT: Readonly<Record<string, readonly string[]>> = {
  tasks: ['prompt'],
  ...{ replicas: ['endpoint'], pools: ['endpoint'], catalog_models: ['signedUrl'] },
};

describe('no secret comes out', () => {
  it('by the answers of any door, and they say what was wrong all the same', async () => {
    expect(answers.join('\n')).toContain('is not valid JSON');
    expect(answers.flatMap((answer) => found(answer))).toEqual([]);
  });

  it('by what GraphQL shows of pools, crashes, events and the logs of engines', async () => {
    const text = await throughGraphQL(EVERYTHING);
    expect(text).not.toContain('"errors"');
    expect(text).toContain('starting with');
    expect(text).toContain('--api-key');
    expect(text).toContain('[redacted]');
    expect(found(text)).toEqual([]);
  });

  it('by the log', () => {
    const text = world.logLines().join('');
    expect(text).toContain('engine crashed');
    expect(text).toContain('task rejected');
    expect(found(text)).toEqual([]);
    for (const line of world.logLines()) JSON.parse(line);
  });

  it('by the metrics', async () => {
    expect(found(await call('/metrics'))).toEqual([]);
  });

  it('by the database, but for the prompts of tasks, and where a pool or a model of the catalog is to be had', async () => {
    const tables = await world.database.query<{ name: string }>(
      `SELECT tablename AS name FROM pg_tables WHERE schemaname = current_schema()`,
    );
    expect(tables.length).toBeGreaterThan(10);
    for (const { name } of tables) {
      const rows = await world.database.query<{ text: string }>(`SELECT t::text AS text FROM ${name} t`);
      const text = rows.map((row) => row.text).join('\n');
      expect(found(text, KEPT[name] ?? []), name).toEqual([]);
    }
  });

  it('to an engine that it is not for, nor by the arguments of any process', async () => {
    const [row] = await world.database.query<{ pid: number }>(`SELECT pid FROM replicas WHERE id = 'good-0'`);
    const environment = await readFile(`/proc/${row?.pid}/environ`, 'utf8');
    expect(found(environment)).toEqual(['hfToken']);
    const key = /LLAMA_API_KEY=([^\0]+)/.exec(environment)?.[1] ?? '';
    expect(key.length).toBeGreaterThan(20);
    const processes = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
    for (const pid of processes) {
      const args = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      // An operator who writes a secret into the flags of an engine has put it into that engine's arguments.
      expect(found(args, ['apiKeyFlag', 'hfTokenFlag']), pid).toEqual([]);
      expect(args.includes(key), pid).toBe(false);
    }
  });
});
