import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { digestOf, register, send, verificationOf } from '../support/catalog.js';
import { gql } from '../support/graphql.js';
import { scrape } from '../support/metrics.js';
import { post, readStream, taskRequest } from '../support/rest.js';
import { simConfig, startWorld, type World } from '../support/world.js';

const SOON = { timeout: 20_000, interval: 20 };
const DIGEST = `sha256:${'d'.repeat(64)}`;
const FILE = randomBytes(100_000);
let world: World;
let strict: World;
let folder: string;
let file: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'llama-orch-catalog-'));
  file = join(folder, 'a b.gguf');
  await writeFile(file, FILE);
  const second = `
  - { id: second, engine: llamacpp, model: sim-8b, ctx: 4096, provisioning: { mode: simulated, simulated: { first_token_ms: 0, load_ms: 0 } } }`;
  const config = `${simConfig()}${second}\ncatalog: { model_roots: [${JSON.stringify(folder)}] }\n`;
  const policy =
    'catalog: { trust_policy: { mode: strict, require_sbom: true, allowed_registries: [huggingface.co] } }';
  [world, strict] = await Promise.all([
    startWorld({ config }),
    startWorld({ config: `${simConfig({ replicas: 1 })}\n${policy}\n` }),
  ]);
});
afterAll(async () => {
  await Promise.all([world?.[Symbol.asyncDispose](), strict?.[Symbol.asyncDispose]()]);
  await rm(folder, { recursive: true, force: true });
});

async function submit(
  url: string,
  overrides: Record<string, unknown>,
): Promise<Record<string, unknown> & { status: number }> {
  return send(url, '/v1/tasks', taskRequest({ max_tokens: 3, ...overrides }));
}

const setState = (id: string, body: Record<string, unknown>) =>
  send(world.url, `/v1/catalog/models/${encodeURIComponent(id)}/state`, body);

describe('a catalog model', () => {
  it('is registered once, read back whole, and its signatures are never taken for verified', async () => {
    const model = {
      ...{ id: 'Qwen/qwen2:7b', digest: DIGEST, source_url: 'hf:Qwen/Qwen2/q.gguf', tags: ['chat'] },
      manifests: [{ digest: DIGEST, size_bytes: 4_294_967_296 }],
      signatures: [{ signer: 'me', algo: 'ecdsa', verified: true, timestamp_ms: 1_700_000_000_000 }],
      sbom: { uri: 'https://example.org/sbom', digest: DIGEST },
      trust_policy: {
        mode: 'permissive',
        allowed_registries: ['huggingface.co'],
        require_signature: true,
        require_sbom: true,
        ca_roots: ['r'],
      },
    };
    const kept = { ...model, signatures: [{ ...model.signatures[0], verified: false }] };
    expect(await register(world.url, model)).toEqual(kept);
    expect(await register(world.url, model)).toEqual(kept);
    const path = `/v1/catalog/models/${encodeURIComponent(model.id)}`;
    expect(await (await fetch(world.url + path)).json()).toEqual(kept);
    expect(await send(world.url, '/v1/catalog/models', { ...model, tags: [] })).toMatchObject({
      status: 409,
      field: 'id',
    });
    expect((await fetch(world.url + path, { method: 'DELETE' })).status).toBe(204);
    expect((await fetch(world.url + path, { method: 'DELETE' })).status).toBe(404);
    expect((await fetch(world.url + path)).status).toBe(404);
  });

  it.each([
    ['id', { id: '' }],
    ['id', { id: DIGEST }],
    ['id', { id: 'a b' }],
    ['digest', { digest: 'sha256:short' }],
    ['digest', { digest: undefined }],
    ['source_url', { source_url: 'file:../../etc/passwd' }],
    ['source_url', { source_url: 'https://me:secret@example.org/a' }],
    ['source_url', { source_url: 'just-a-name' }],
    ['tags', { tags: ['a\u0000'] }],
    ['trust_policy.mode', { trust_policy: { mode: 'lax' } }],
    ['body', { manifests: Array.from({ length: 1024 }, () => ({ digest: 'x'.repeat(400) })) }],
  ])('is refused for its %s', async (field, change) => {
    const answer = await send(world.url, '/v1/catalog/models', { id: 'm', digest: DIGEST, ...change });
    expect(answer).toMatchObject({ status: 400, code: 'INVALID_PARAMS', field });
    expect(JSON.stringify(answer)).not.toContain('secret');
  });

  it('is verified by its file: warned without signatures, failed with another digest, unreadable outside', async () => {
    const url = `file://${file.replace(' ', '%20')}`;
    await register(world.url, { id: 'good', digest: digestOf(FILE), source_url: url });
    const good = await send(world.url, '/v1/catalog/models/good/verify');
    expect(good).toMatchObject({ status: 202, id: 'good', digest: digestOf(FILE), warnings: [{ code: 'UNSIGNED' }] });
    expect(good.said).toBe('warned');
    await register(world.url, { id: 'bad', digest: DIGEST, source_url: url });
    expect(await send(world.url, '/v1/catalog/models/bad/verify')).toMatchObject({
      status: 400,
      code: 'UNTRUSTED_ARTIFACT',
    });
    expect(await verificationOf(world.url, 'bad')).toMatchObject({
      verification: {
        result: 'FAILED',
        digest: digestOf(FILE),
        reasons: [{ code: 'DIGEST_MISMATCH' }, { code: 'UNSIGNED' }],
      },
    });
    for (const [id, source_url, code] of [
      ['outside', 'file:///etc/passwd', 'POLICY_REFUSED'],
      ['nowhere', undefined, 'NO_SOURCE'],
      ['remote', 'https://example.org/a.gguf', 'NOT_STAGED'],
      ['gone', `file:${folder}/gone.gguf`, 'MODEL_MISSING'],
    ] as const) {
      await register(world.url, { id, digest: DIGEST, source_url });
      await send(world.url, `/v1/catalog/models/${id}/verify`);
      expect(await verificationOf(world.url, id)).toMatchObject({
        verification: { result: 'UNREADABLE', digest: null, reasons: [{ code }, {}] },
      });
    }
    expect(await send(world.url, '/v1/catalog/models/nobody/verify')).toMatchObject({ status: 404 });
    const counted = (await scrape(world.url)).get('catalog_verifications_total') ?? [];
    expect(counted).toContainEqual({ labels: { result: 'WARNED', reason: 'UNSIGNED', engine: '' }, value: 1 });
    expect(counted).toContainEqual({ labels: { result: 'FAILED', reason: 'DIGEST_MISMATCH', engine: '' }, value: 1 });
  });

  it('lends its id to tasks, and its digest once that was verified; the task has the name of its pool', async () => {
    await register(world.url, { id: 'sim-7b', digest: digestOf(FILE), source_url: `file:${file}` });
    expect(await submit(world.url, { model_ref: digestOf(FILE) })).toMatchObject({ status: 400, field: 'model_ref' });
    expect(await send(world.url, '/v1/catalog/models/sim-7b/verify')).toMatchObject({ status: 202 });
    const byDigest = taskRequest({ model_ref: digestOf(FILE), max_tokens: 3 });
    expect(await send(world.url, '/v1/tasks', byDigest)).toMatchObject({ status: 202 });
    expect(await send(world.url, '/v1/tasks', byDigest)).toMatchObject({ status: 202 });
    await readStream(world.url, byDigest.task_id);
    const query = `query ($id: UUID!) { task(taskId: $id) { modelRef status pool { name model { modelId state } } } }`;
    expect((await gql(world.url, query, { id: byDigest.task_id })).data.task).toEqual({
      ...{
        modelRef: 'sim-7b',
        status: 'SUCCEEDED',
        pool: { name: 'sim', model: { modelId: 'sim-7b', state: 'ACTIVE' } },
      },
    });
    const counted = (await scrape(world.url)).get('catalog_verifications_total') ?? [];
    expect(counted).toContainEqual({ labels: { result: 'WARNED', reason: 'UNSIGNED', engine: 'llamacpp' }, value: 1 });
    // What GraphQL callers leave out is filled from the pool, whichever name they use.
    const submitTask = `mutation ($input: SubmitTaskInput!) { submitTask(input: $input) {
      __typename ... on TaskAccepted { task { ctx pool { name } } } ... on Refusal { field message } } }`;
    const asked = { modelRef: digestOf(FILE), prompt: 'to be continued', maxTokens: 3 };
    expect((await gql(world.url, submitTask, { input: asked })).data.submitTask).toEqual({
      ...{ __typename: 'TaskAccepted', task: { ctx: 4096, pool: { name: 'sim' } } },
    });
    const long = { ...asked, engine: 'LLAMACPP', ctx: 10, modelRef: 'm'.repeat(1025) };
    for (const input of [long, { ...long, ctx: null }]) {
      expect((await gql(world.url, submitTask, { input })).data.submitTask).toMatchObject({ field: 'model_ref' });
    }
    const explain = 'query ($input: SubmitTaskInput!) { explainPlacement(input: $input) { chosen } }';
    expect((await gql(world.url, explain, { input: long })).errors?.[0]?.message).toContain('at most 1024');
  });

  it('that is retired takes no new task at once, lets running ones end, and takes them again when it is active', async () => {
    await register(world.url, { id: 'sim-8b', digest: DIGEST });
    const known = taskRequest({ model_ref: 'sim-8b', max_tokens: 3 });
    expect(await send(world.url, '/v1/tasks', known)).toMatchObject({ status: 202 });
    expect(await setState('sim-8b', { state: 'Retired' })).toEqual({ status: 202, id: 'sim-8b', state: 'Retired' });
    expect(await submit(world.url, { model_ref: 'sim-8b' })).toMatchObject({
      status: 410,
      code: 'MODEL_DEPRECATED',
      field: 'model_ref',
    });
    // What was admitted before is: its caller may ask again, and read it to its end.
    expect(await send(world.url, '/v1/tasks', known)).toMatchObject({ status: 202 });
    expect((await readStream(world.url, known.task_id)).at(-1)?.event).toBe('end');
    expect((await scrape(world.url)).get('model_state')).toContainEqual({
      labels: { model_id: 'sim-8b', state: 'Retired' },
      value: 1,
    });
    expect(await send(world.url, '/v1/pools/sim/reload', { new_model_ref: 'sim-8b' })).toMatchObject({
      status: 410,
      code: 'MODEL_DEPRECATED',
    });
    expect(await setState('sim-8b', { state: 'Active' })).toMatchObject({ status: 202, state: 'Active' });
    expect(await submit(world.url, { model_ref: 'sim-8b' })).toMatchObject({ status: 202 });
    expect(await setState('sim-8b', { state: 'Gone' })).toMatchObject({ status: 400, field: 'state' });
    expect(await setState('sim-8b', { state: 'Retired', deadline_ms: -1 })).toMatchObject({ status: 400 });
  });

  it('that is retired with a deadline has its pools drained then, also after a resume', async () => {
    const draining = async () =>
      (await gql(world.url, '{ pool(name: "second") { draining operation { kind } } }')).data.pool.draining;
    expect(await setState('sim-8b', { state: 'Retired', deadline_ms: 0 })).toMatchObject({
      drain_at: expect.any(String),
    });
    await expect.poll(draining, SOON).toBe(true);
    const resume = () => gql(world.url, 'mutation { resumePool(input: { pool: "second" }) { __typename } }');
    const kinds = async () =>
      (
        await world.database.query<{ kind: string }>(
          `SELECT kind FROM operations WHERE pool_id = 'second' AND state = 'SUCCEEDED' ORDER BY created_at`,
        )
      ).map((row) => row.kind);
    await expect.poll(kinds, SOON).toEqual(['DRAIN']);
    await resume();
    await expect.poll(kinds, SOON).toEqual(['DRAIN', 'RESUME', 'DRAIN']);
    expect((await gql(world.url, '{ pool(name: "sim") { draining } }')).data.pool.draining).toBe(false);
    await setState('sim-8b', { state: 'Active' });
    await resume();
    await expect.poll(kinds, SOON).toEqual(['DRAIN', 'RESUME', 'DRAIN', 'RESUME']);
    expect(await submit(world.url, { model_ref: 'sim-8b' })).toMatchObject({ status: 202 });
  });

  it('whose file is another one takes no task', async () => {
    await register(world.url, { id: 'swapped', digest: DIGEST, source_url: 'file:sim-8b' });
    await world.database.query(
      `UPDATE catalog_models SET verification = '{"result": "FAILED", "reasons": [], "digest": "sha256:other", "atMs": 0}' WHERE id = 'swapped'`,
    );
    await expect
      .poll(async () => (await submit(world.url, { model_ref: 'swapped' })).code, SOON)
      .toBe('UNTRUSTED_ARTIFACT');
  });

  it('is managed through GraphQL too, with refusals as data', async () => {
    const create = `mutation ($input: CreateCatalogModelInput!) { createCatalogModel(input: $input) { __typename
      ... on CatalogModelChanged { model { id modelId digest signatures { signer verified } trustPolicy { mode } findings { code } } }
      ... on Refusal { code field } } }`;
    const input = {
      modelId: 'gql',
      digest: DIGEST,
      signatures: [{ signer: 's' }],
      trustPolicy: { mode: 'STRICT', requireSbom: true },
    };
    const made = (await gql(world.url, create, { input })).data.createCatalogModel;
    expect(made.model).toMatchObject({
      signatures: [{ signer: 's', verified: false }],
      trustPolicy: { mode: 'STRICT' },
    });
    expect(made.model.findings.map(({ code }: { code: string }) => code)).toEqual([
      'SIGNATURE_UNVERIFIED',
      'SBOM_MISSING',
    ]);
    expect((await gql(world.url, create, { input: { ...input, digest: 'x' } })).data.createCatalogModel).toEqual({
      ...{ __typename: 'InvalidParams', code: 'INVALID_PARAMS', field: 'digest' },
    });
    for (const [bad, field] of [
      [{ manifests: [{ digest: DIGEST, sizeBytes: 1.5 }] }, 'manifests.0.size_bytes'],
      [{ manifests: [{ digest: DIGEST, sizeBytes: 2 ** 53 }] }, 'manifests.0.size_bytes'],
      [{ signatures: [{ signer: 's' }, { signer: 's', timestampMs: -1 }] }, 'signatures.1.timestamp_ms'],
    ] as const) {
      const answer = await gql(world.url, create, { input: { ...input, modelId: 'numbers', ...bad } });
      expect(answer.data.createCatalogModel, JSON.stringify(answer)).toMatchObject({ code: 'INVALID_PARAMS', field });
    }
    const verify = `mutation { verifyCatalogModel(input: { modelId: "gql" }) { __typename ... on Refusal { code } } }`;
    expect((await gql(world.url, verify)).data.verifyCatalogModel).toEqual({
      __typename: 'InvalidParams',
      code: 'UNTRUSTED_ARTIFACT',
    });
    const retire = `mutation { setCatalogModelState(input: { modelId: "gql", state: RETIRED, deadlineMs: 60000 }) {
      ... on CatalogModelChanged { model { state drainAt } } } }`;
    expect((await gql(world.url, retire)).data.setCatalogModelState.model).toMatchObject({
      state: 'RETIRED',
      drainAt: expect.any(String),
    });
    const list = await gql(world.url, '{ catalogModels(first: 10, state: RETIRED) { edges { node { modelId } } } }');
    expect(list.data.catalogModels.edges).toEqual([{ node: { modelId: 'gql' } }]);
    const node = await gql(world.url, 'query ($id: ID!) { node(id: $id) { ... on CatalogModel { modelId } } }', {
      id: made.model.id,
    });
    expect(node.data.node).toEqual({ modelId: 'gql' });
    const remove = `mutation { deleteCatalogModel(input: { modelId: "gql" }) { __typename ... on CatalogModelDeleted { modelId } } }`;
    expect((await gql(world.url, remove)).data.deleteCatalogModel).toEqual({
      __typename: 'CatalogModelDeleted',
      modelId: 'gql',
    });
    expect((await gql(world.url, remove)).data.deleteCatalogModel).toEqual({ __typename: 'NotFound' });
  });
});

describe('a strict trust policy', () => {
  it('lets tasks use models that the catalog has, from an allowed registry, signed and with an SBOM, and no others', async () => {
    const refused = { status: 400, code: 'UNTRUSTED_ARTIFACT', field: 'model_ref' };
    const again = async (model: Record<string, unknown>) => {
      await fetch(`${strict.url}/v1/catalog/models/sim-7b`, { method: 'DELETE' });
      await register(strict.url, { id: 'sim-7b', digest: DIGEST, ...model });
      return submit(strict.url, { model_ref: 'sim-7b' });
    };
    expect(await submit(strict.url, { model_ref: 'sim-7b' })).toMatchObject(refused);
    const signed = { signatures: [{ signer: 's' }], sbom: { uri: 'u' }, source_url: 'hf:a/b/c.gguf' };
    expect(await again({ ...signed, signatures: [] })).toMatchObject(refused);
    expect(await again({ ...signed, sbom: null })).toMatchObject(refused);
    expect(await again({ ...signed, source_url: 'https://example.org/c.gguf' })).toMatchObject(refused);
    const loose = { mode: 'permissive' };
    expect(await again({ ...signed, signatures: [], trust_policy: loose })).toMatchObject(refused);
    expect(await again(signed)).toMatchObject({ status: 202 });
    expect(
      await post(strict.url, '/v1/pools/sim/reload', { new_model_ref: 'unknown' }).then((answer) => answer.json()),
    ).toMatchObject({
      code: 'UNTRUSTED_ARTIFACT',
    });
  });
});
