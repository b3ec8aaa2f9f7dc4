import { randomBytes, randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { beginStaging, closeInterrupted } from '../../src/store/stagings.js';
import { digestOf, register, send, verificationOf } from '../support/catalog.js';
import { openDatabase } from '../support/database.js';
import { type FileServer, serve, startFileServer } from '../support/fileServer.js';
import { gql } from '../support/graphql.js';
import { scrape } from '../support/metrics.js';
import { followOperation } from '../support/operations.js';
import { simConfig, startWorld, type World } from '../support/world.js';

const SOON = { timeout: 20_000, interval: 20 };
const MODEL = Buffer.concat([Buffer.from('GGUF'), randomBytes(1_999_996)]);
/** As PyTorch writes them: a zip archive, and a bare pickle. */
const PICKLES = [Buffer.from('PK\x03\x04 archive/data.pkl'), Buffer.from('\x80\x02}q\x00.', 'latin1')];
const SAFETENSORS = Buffer.concat([Buffer.from([2, 0, 0, 0, 0, 0, 0, 0]), Buffer.from('{}')]);
const DIGEST = digestOf(MODEL);
let world: World;
let server: FileServer;
let folder: string;
let modelsDir: string;
/** Of a download that nobody has gone on with for long. */
const FORGOTTEN = '.sha256-0.0.part';
/** Downloads of /slow get half of the file, and the rest when `finish` is called. */
const slow: { finish: (() => void) | null } = { finish: null };

function finishSlow(): void {
  slow.finish?.();
}

function halfOf(response: ServerResponse, start: number): void {
  const half = start + Math.floor((MODEL.length - start) / 2);
  const range = start === 0 ? {} : { 'content-range': `bytes ${start}-${MODEL.length - 1}/${MODEL.length}` };
  response.writeHead(start === 0 ? 200 : 206, { 'content-length': MODEL.length - start, ...range });
  response.write(MODEL.subarray(start, half));
  slow.finish = () => response.end(MODEL.subarray(half));
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'llama-orch-staging-'));
  server = await startFileServer((request, response) => {
    if (request.url === '/slow') return halfOf(response, Number(/\d+/.exec(request.headers.range ?? '')?.[0] ?? 0));
    const [, pickle] = /^\/pickle(\d)$/.exec(request.url ?? '') ?? [];
    if (pickle !== undefined) return serve(PICKLES[Number(pickle)] ?? Buffer.alloc(0))(request, response);
    if (request.url === '/safe') return serve(SAFETENSORS)(request, response);
    if (request.url === '/huge') return serve(Buffer.alloc(3_000_001))(request, response);
    if (request.url === '/moved') return void response.writeHead(302, { location: '/model.gguf' }).end();
    if (request.url === '/inside')
      return void response.writeHead(302, { location: 'https://169.254.169.254/latest' }).end();
    serve(MODEL)(request, response);
  });
  modelsDir = join(folder, 'home', 'models');
  await mkdir(modelsDir, { recursive: true });
  await writeFile(join(modelsDir, FORGOTTEN), 'x');
  const weekAgoS = Date.now() / 1000 - 8 * 86_400;
  await utimes(join(modelsDir, FORGOTTEN), weekAgoS, weekAgoS);
  const config = `${simConfig({ replicas: 1 })}
network: { allow_hosts: ["${server.host}"] }
catalog: { model_roots: ["${folder}"], max_model_bytes: 3000000 }
`;
  world = await startWorld({ config, env: { LLAMA_ORCH_HOME: join(folder, 'home') } });
});
afterAll(async () => {
  await world?.[Symbol.asyncDispose]();
  await server?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

interface Staging {
  readonly id: string;
  readonly state: string;
  readonly receivedBytes: string;
  readonly totalBytes: string | null;
  readonly progress: number | null;
  readonly path: string | null;
  readonly error: { readonly code: string; readonly message: string; readonly fix: string } | null;
}

const FIELDS = 'id state receivedBytes totalBytes progress path detail error { code message fix }';

async function stage(
  modelId: string,
): Promise<{ staging?: Staging; code?: string; message?: string; __typename: string }> {
  const mutation = `mutation ($id: String!) { stageCatalogModel(input: { modelId: $id }) { __typename
    ... on StagingAccepted { staging { ${FIELDS} } } ... on Refusal { code message field } } }`;
  return (await gql(world.url, mutation, { id: modelId })).data.stageCatalogModel;
}

async function read(id: string): Promise<Staging> {
  return (await gql(world.url, `query ($id: ID!) { node(id: $id) { ... on ModelStaging { ${FIELDS} } } }`, { id })).data
    .node;
}

async function staged(modelId: string): Promise<Staging> {
  const begun = await stage(modelId);
  const id = begun.staging?.id ?? '';
  expect(id, JSON.stringify(begun)).not.toBe('');
  await expect.poll(async () => (await read(id)).state, SOON).not.toBe('RUNNING');
  return read(id);
}

const cancel = (id: string) =>
  gql(
    world.url,
    `mutation ($id: ID!) { cancelStaging(input: { id: $id }) { __typename ... on StagingAccepted { staging { ${FIELDS} } } } }`,
    { id },
  );

const cached = (digest = DIGEST) => join(modelsDir, digest.replace(':', '-'));
const forget = () => rm(cached(), { force: true });
let models = 0;

/** A model of its own name. */
async function model(source_url: string, digest = DIGEST): Promise<string> {
  models += 1;
  await register(world.url, { id: `m${models}`, digest, source_url });
  return `m${models}`;
}

it('that an earlier life of the node, or a lost node, was at ends as interrupted', async () => {
  await using opened = await openDatabase();
  await opened.query(
    `INSERT INTO catalog_models (id, digest, tags, manifests, signatures) VALUES ('m', 'd', '{}', '[]', '[]')`,
  );
  const [ours, lost, running] = [randomUUID(), randomUUID(), randomUUID()];
  await opened.query(
    `INSERT INTO nodes (id, number, url, started_at, seen_at) VALUES ($1, 1, '', now(), now() - interval '1 minute'), ($2, 2, '', now(), now())`,
    [lost, running],
  );
  const ids: string[] = [];
  for (const node of [ours, lost, running]) ids.push(await beginStaging(opened.db, randomUUID(), 'm', node));
  expect(await beginStaging(opened.db, randomUUID(), 'm', ours)).toBe(ids[0]);
  const reason = { code: 'INTERRUPTED', message: 'm', fix: null };
  const states = async () =>
    (
      await opened.query<{ state: string }>(
        'SELECT state FROM model_stagings ORDER BY array_position($1::uuid[], id)',
        [ids],
      )
    ).map(({ state }) => state);
  // Those of this node are asked about one by one, when their rows have been seen.
  const asked: string[] = [];
  await closeInterrupted(opened.db, ours, (id) => asked.push(id) > 0, reason);
  expect([asked, await states()]).toEqual([[ids[0]], ['RUNNING', 'FAILED', 'RUNNING']]);
  await closeInterrupted(opened.db, ours, () => false, reason);
  expect(await states()).toEqual(['FAILED', 'FAILED', 'RUNNING']);
});

describe('staging', () => {
  it('fetches a model under its digest, through redirects, and the catalog can verify it then', async () => {
    const id = await model(`${server.url}/moved`);
    const done = await staged(id);
    expect(done).toMatchObject({
      state: 'SUCCEEDED',
      path: cached(),
      progress: 1,
      receivedBytes: String(MODEL.length),
      error: null,
    });
    expect(digestOf(await readFile(cached()))).toBe(DIGEST);
    expect((await stat(cached())).mode & 0o777).toBe(0o644);
    const asked = server.requests.length;
    expect(await staged(id)).toMatchObject({ state: 'SUCCEEDED', detail: 'was in the cache already' });
    expect(server.requests).toHaveLength(asked);
    await send(world.url, `/v1/catalog/models/${id}/verify`);
    expect(await verificationOf(world.url, id)).toMatchObject({ verification: { result: 'WARNED', digest: DIGEST } });
  });

  it('fetches again what is damaged in the cache', async () => {
    await writeFile(cached(), 'damaged');
    expect(await staged(await model(`${server.url}/model.gguf`))).toMatchObject({
      state: 'SUCCEEDED',
      detail: 'fetched; its digest is right',
    });
    expect(digestOf(await readFile(cached()))).toBe(DIGEST);
  });

  it('tells how far it is, is one for all who ask, is cancelled, and goes on where it stopped', async () => {
    await forget();
    const id = await model(`${server.url}/slow`);
    const [first, second] = await Promise.all([stage(id), stage(id)]);
    expect(second.staging?.id).toBe(first.staging?.id);
    const stagingId = first.staging?.id ?? '';
    await expect.poll(async () => (await read(stagingId)).progress, SOON).toBeCloseTo(0.5);
    expect(await read(stagingId)).toMatchObject({ state: 'RUNNING', totalBytes: String(MODEL.length) });
    const canceled = (await cancel(stagingId)).data.cancelStaging.staging;
    expect(canceled).toMatchObject({ state: 'CANCELED', path: null, error: { code: 'CANCELED' } });
    expect(await stat(cached()).catch(() => null)).toBeNull();
    expect((await cancel(stagingId)).data.cancelStaging.staging.state).toBe('CANCELED');

    slow.finish = null;
    const begun = (await stage(id)).staging?.id ?? '';
    await expect.poll(() => slow.finish !== null, SOON).toBe(true);
    expect(server.requests.at(-1)).toBe(`GET /slow bytes=${MODEL.length / 2}-`);
    finishSlow();
    await expect.poll(async () => (await read(begun)).state, SOON).toBe('SUCCEEDED');
  });

  it('is refused while many are under way, but for one of these', async () => {
    await forget();
    const under: string[] = [];
    const one = await model(`${server.url}/slow`);
    for (let n = 0; n < 4; n += 1) {
      under.push((await stage(n === 0 ? one : await model(`${server.url}/slow`))).staging?.id ?? '');
    }
    const next = await model(`${server.url}/slow`);
    expect(await stage(next)).toMatchObject({ code: 'POOL_UNAVAILABLE' });
    // A reload that needs it says the same, not that its source cannot be used.
    expect(await send(world.url, '/v1/pools/sim/reload', { new_model_ref: next })).toMatchObject({
      ...{ status: 503, message: expect.stringContaining('are being staged') },
    });
    expect((await stage(one)).staging?.id).toBe(under[0]);
    for (const id of under) await cancel(id);
    for (const id of under) await expect.poll(async () => (await read(id)).state, SOON).toBe('CANCELED');
  });

  it('is cancelled by a row too, as another node does it', async () => {
    await forget();
    const id = await model(`${server.url}/slow`);
    const stagingId = (await stage(id)).staging?.id ?? '';
    await world.database.query(`UPDATE model_stagings SET cancel_requested_at = now() WHERE state = 'RUNNING'`);
    await expect.poll(async () => (await read(stagingId)).state, SOON).toBe('CANCELED');
  });

  it('uses a file of this host where it is, once its digest was found right', async () => {
    const file = join(folder, 'local.gguf');
    await writeFile(file, MODEL);
    expect(await staged(await model(`file:${file}`))).toMatchObject({ state: 'SUCCEEDED', path: file });
    expect(await staged(await model(`file:${file}`, `sha256:${'0'.repeat(64)}`))).toMatchObject({
      ...{ state: 'FAILED', path: null, error: { code: 'CHECKSUM_MISMATCH' } },
    });
    expect(await staged(await model('file:///etc/hostname'))).toMatchObject({ error: { code: 'POLICY_REFUSED' } });
    expect(await staged(await model('file:///proc/self/environ'))).toMatchObject({ error: { code: 'POLICY_REFUSED' } });
  });

  it.each([
    ['an unlisted host', 'https://example.org/a.gguf', 'policy does not allow example.org'],
    ['a hub that is not listed', 'hf:Qwen/Qwen2/a.gguf', 'policy does not allow huggingface.co'],
    ['the metadata service', 'http://169.254.169.254/latest', 'policy does not allow 169.254.169.254'],
    ['a whole repository', 'hf:Qwen/Qwen2', 'names a whole repository'],
    ['s3', 's3://bucket/a.gguf', 'aws s3 cp'],
    ['oci', 'oci://ghcr.io/a/b:1', 'oras pull'],
  ])('of %s is refused at once with advice', async (_name, source, message) => {
    const asked = server.requests.length;
    const answer = await stage(await model(source));
    expect(answer).toMatchObject({ __typename: 'InvalidParams', code: 'INVALID_PARAMS', field: 'source_url' });
    expect(answer.message).toContain(message);
    expect(server.requests).toHaveLength(asked);
  });

  it('leaves nothing of what is not what was promised, too large, or elsewhere', async () => {
    const before = await readdir(modelsDir);
    const other = `sha256:${'1'.repeat(64)}`;
    expect(await staged(await model(`${server.url}/model.gguf`, other))).toMatchObject({
      error: { code: 'CHECKSUM_MISMATCH' },
    });
    expect(await staged(await model(`${server.url}/huge`, other))).toMatchObject({
      error: { code: 'DOWNLOAD_TOO_LARGE', message: expect.stringContaining('/huge is larger than 2.9 MiB') },
    });
    expect(await staged(await model(`${server.url}/inside`, other))).toMatchObject({
      error: { code: 'POLICY_REFUSED' },
    });
    expect((await readdir(modelsDir)).filter((name) => !before.includes(name) && !name.endsWith('.part'))).toEqual([]);
    expect(await stage('nobody')).toMatchObject({ __typename: 'NotFound' });
    const counted = (await scrape(world.url)).get('model_stagings_total') ?? [];
    expect(counted.map(({ labels }) => labels.result).sort()).toEqual(['CANCELED', 'FAILED', 'SUCCEEDED']);
    const lines = world.logLines().map((line) => JSON.parse(line) as Record<string, unknown>);
    const told = lines.filter(({ msg }) => msg === 'model staged');
    expect(told.length).toBeGreaterThan(5);
    for (const line of told) expect(line.correlation_id, JSON.stringify(line)).toMatch(/^[0-9a-f-]{36}$/);
    expect(before).not.toContain(FORGOTTEN);
  });

  it('of a file that may run code is refused, wherever it is, and of one that is only data is not', async () => {
    const unsafe = { state: 'FAILED', path: null, error: { code: 'UNSAFE_FORMAT', message: expect.anything() } };
    for (const [index, bytes] of PICKLES.entries()) {
      const answer = await staged(await model(`${server.url}/pickle${index}`, digestOf(bytes)));
      expect(answer).toMatchObject(unsafe);
      expect(answer.error?.message).toContain('like a pickle');
      expect(await stat(cached(digestOf(bytes))).catch(() => null)).toBeNull();
    }
    const file = join(folder, 'model.bin');
    await writeFile(file, 'anything');
    expect(await staged(await model(`file:${file}`, digestOf(Buffer.from('anything'))))).toMatchObject(unsafe);
    const safe = await model(`${server.url}/safe`, digestOf(SAFETENSORS));
    expect(await staged(safe)).toMatchObject({ state: 'SUCCEEDED', path: cached(digestOf(SAFETENSORS)) });
  });

  it('is begun by a reload that needs it, which is served when it is there', async () => {
    await forget();
    const id = await model(`${server.url}/model.gguf`);
    const reload = () => send(world.url, '/v1/pools/sim/reload', { new_model_ref: id });
    const first = await reload();
    expect(first).toMatchObject({ status: 503, code: 'POOL_UNREADY', retriable: true });
    expect(first.message).toContain('is being fetched');
    await expect.poll(async () => (await reload()).status, SOON).toBe(202);
    expect(await lastOperation()).toMatchObject({ kind: 'RELOAD', state: 'SUCCEEDED' });
    const query = '{ pool(name: "sim") { modelRef ready model { digest } replicas { preload { name state } } } }';
    const { replicas, ...pool } = (await gql(world.url, query)).data.pool;
    expect(pool).toEqual({ modelRef: `file:${cached()}`, ready: true, model: { digest: DIGEST } });
    expect(replicas[0].preload).toContainEqual({ name: 'verify_model', state: 'SUCCEEDED' });
    expect(await send(world.url, '/v1/pools/sim/reload', { new_model_ref: 's3://b/k' })).toMatchObject({
      status: 503,
      code: 'POOL_UNREADY',
    });
    expect(await send(world.url, '/v1/pools/sim/reload', { new_model_ref: `sha256:${'2'.repeat(64)}` })).toMatchObject({
      status: 400,
    });
  });

  it('is not needed for a file that is here, which a reload holds against its digest before it is served', async () => {
    const file = join(folder, 'other.gguf');
    await writeFile(file, randomBytes(1000));
    const id = await model(`file:${file}`, `sha256:${'3'.repeat(64)}`);
    const before = (await gql(world.url, '{ pool(name: "sim") { modelRef ready } }')).data.pool;
    expect(await send(world.url, '/v1/pools/sim/reload', { new_model_ref: id })).toMatchObject({ status: 202 });
    const ended = await lastOperation();
    expect(ended?.state).not.toBe('SUCCEEDED');
    expect(ended?.error).toMatchObject({ code: 'CHECKSUM_MISMATCH' });
    expect((await gql(world.url, '{ pool(name: "sim") { modelRef ready } }')).data.pool).toEqual(before);
    // Another entry for the same file: neither name leads to it, until one of them is retired.
    const right = await model(`file:${file}`, digestOf(await readFile(file)));
    const reload = () => send(world.url, '/v1/pools/sim/reload', { new_model_ref: right });
    expect(await reload()).toMatchObject({ status: 409, message: expect.stringContaining(id) });
    expect(await send(world.url, `/v1/catalog/models/${id}/state`, { state: 'Retired' })).toMatchObject({
      status: 202,
    });
    expect(await reload()).toMatchObject({ status: 202 });
    expect(await lastOperation()).toMatchObject({ state: 'SUCCEEDED' });
  });
});

/** How the newest operation ended. */
async function lastOperation() {
  const [row] = await world.database.query<{ id: string }>(
    `SELECT id FROM operations ORDER BY created_at DESC LIMIT 1`,
  );
  return (await followOperation(world.url, Buffer.from(`Operation:${row?.id}`).toString('base64'))).at(-1);
}
