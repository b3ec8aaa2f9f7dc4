import { createHash, randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { canonicalJson } from '../../src/core/canonicalJson.js';
import { gql } from '../support/graphql.js';
import { post, readStream, taskRequest } from '../support/rest.js';
import { startWorld, type World } from '../support/world.js';

let world: World;

beforeAll(async () => {
  world = await startWorld();
});
afterAll(async () => {
  await world[Symbol.asyncDispose]();
});

interface Reference {
  readonly id: string;
  readonly kind: string;
  readonly digest: string;
  readonly created_ms: number;
  readonly tags: string[];
}

async function create(artifact: Record<string, unknown>): Promise<Reference> {
  const answer = await post(world.url, '/v1/artifacts', { kind: 'plan', ...artifact });
  expect(answer.status, await answer.clone().text()).toBe(201);
  return (await answer.json()) as Reference;
}

async function refused(artifact: unknown): Promise<{ status: number; code: string; field: string; message: string }> {
  const answer = await post(world.url, '/v1/artifacts', artifact);
  return { status: answer.status, ...((await answer.json()) as { code: string; field: string; message: string }) };
}

const sha256 = (text: string) => `sha256:${createHash('sha256').update(text).digest('hex')}`;

describe('artifacts', () => {
  it('are kept once under a hash that anybody can compute, and given back as they came', async () => {
    const content = { steps: ['a', 'b'], cost: 1.5, none: null };
    const first = await create({ content, tags: ['x', 'run-1'], metadata: { by: 'me' } });
    const again = await create({
      tags: ['run-1', 'x', 'x'],
      metadata: { by: 'me' },
      content: { none: null, cost: 1.5, steps: ['a', 'b'] },
    });
    expect(again).toEqual(first);
    expect(first).toMatchObject({ kind: 'plan', digest: sha256(canonicalJson(content)), tags: ['run-1', 'x'] });
    const whole = { content, kind: 'plan', metadata: { by: 'me' }, parent: null, tags: ['run-1', 'x'] };
    expect(first.id).toBe(sha256(canonicalJson(whole)));
    expect(Math.abs(first.created_ms - Date.now())).toBeLessThan(60_000);
    const other = await create({ content, tags: ['y'] });
    expect(other.id).not.toBe(first.id);
    expect(other.digest).toBe(first.digest);

    const read = await fetch(`${world.url}/v1/artifacts/${first.id}`);
    expect(read.status).toBe(200);
    expect(await read.json()).toEqual({ kind: 'plan', content, tags: ['run-1', 'x'], metadata: { by: 'me' } });
    const escaped = await fetch(`${world.url}/v1/artifacts/${encodeURIComponent(first.id)}`);
    expect(escaped.status).toBe(200);
  });

  it('keep every digit and every character', async () => {
    const body = '{"kind":"other","content":{"n":12345678901234567890,"s":"a\\u0000b\\ud800","e":"\\u00e9"}}';
    const answer = await post(world.url, '/v1/artifacts', body);
    expect(answer.status).toBe(201);
    const { id } = (await answer.json()) as Reference;
    const text = await (await fetch(`${world.url}/v1/artifacts/${id}`)).text();
    expect(text).toContain('12345678901234567890');
    expect(JSON.parse(text).content.s).toBe('a\u0000b\ud800');
  });

  it('are refused with the field that is wrong, and nothing is kept', async () => {
    const missing = `sha256:${'0'.repeat(64)}`;
    const cases: [unknown, string][] = [
      [{ kind: 'plan', content: { a: 1 }, parent: missing }, 'parent'],
      [{ kind: 'plan', content: { a: 'x'.repeat(1_100_000) } }, 'content'],
      [{ kind: 'plan', content: ['a'] }, 'content'],
      [{ kind: 'plan' }, 'content'],
      [{ kind: 'song', content: {} }, 'kind'],
      [{ kind: 'plan', content: {}, tags: ['a\u0000'] }, 'tags'],
      [{ kind: 'plan', content: JSON.parse(`${'{"x":'.repeat(80)}1${'}'.repeat(80)}`) }, 'content'],
    ];
    const before = await world.database.query('SELECT id FROM artifacts');
    for (const [artifact, field] of cases) {
      expect(await refused(artifact)).toMatchObject({ status: 400, code: 'INVALID_PARAMS', field });
    }
    expect((await refused(cases[0]?.[0])).message).toContain('there is no artifact');
    expect(await world.database.query('SELECT id FROM artifacts')).toEqual(before);
    for (const id of [missing, 'nonsense', '%00', 'a'.repeat(5000)]) {
      expect((await fetch(`${world.url}/v1/artifacts/${id}`)).status).toBe(404);
    }
  });

  it('that are kept by many at the same time are one', async () => {
    const content = { at: randomUUID() };
    const made = await Promise.all(Array.from({ length: 20 }, () => create({ content })));
    expect(new Set(made.map(({ id, created_ms }) => `${id} ${created_ms}`)).size).toBe(1);
  });

  it('know their line, up and down', async () => {
    let parent: string | undefined;
    const line: string[] = [];
    for (let n = 0; n < 5; n += 1) {
      const made: Reference = await create({
        kind: 'diff',
        content: { n, of: 'line' },
        ...(parent !== undefined && { parent }),
      });
      parent = made.id;
      line.push(made.id);
    }
    const twin = await create({ kind: 'summary', content: { twin: true }, parent: line[3] });
    const query = `query ($id: String!) { artifact(artifactId: $id) { kind parent { artifactId }
      ancestors(first: 3) { artifactId content } children(first: 1) { edges { node { artifactId } } pageInfo { hasNextPage } } } }`;
    const { data } = await gql(world.url, query, { id: line[4] });
    expect(data.artifact).toMatchObject({ kind: 'DIFF', parent: { artifactId: line[3] }, children: { edges: [] } });
    const ancestors = data.artifact.ancestors.map(({ artifactId }: { artifactId: string }) => artifactId);
    expect(ancestors).toEqual([line[3], line[2], line[1]]);
    const page = (await gql(world.url, query, { id: line[3] })).data.artifact.children;
    expect(page).toMatchObject({ edges: [{ node: { artifactId: twin.id } }], pageInfo: { hasNextPage: true } });
    const stored = await (await fetch(`${world.url}/v1/artifacts/${line[4]}`)).json();
    expect(stored).toMatchObject({ parent: line[3] });
  });

  it('are found by kind and tag, page by page, and the transcript of a task among them', async () => {
    const tag = randomUUID();
    const ids: string[] = [];
    for (let n = 0; n < 5; n += 1) ids.push((await create({ kind: 'summary', content: { n, tag }, tags: [tag] })).id);
    const query = `query ($after: String, $filter: ArtifactFilter) { artifacts(first: 2, after: $after, filter: $filter) {
      edges { node { id artifactId kind tags sizeBytes } } pageInfo { endCursor hasNextPage } } }`;
    const found: string[] = [];
    let after: string | null = null;
    do {
      const { data } = await gql(world.url, query, { after, filter: { tag, kind: 'SUMMARY' } });
      for (const { node } of data.artifacts.edges) found.push(node.artifactId);
      after = data.artifacts.pageInfo.hasNextPage ? data.artifacts.pageInfo.endCursor : null;
    } while (after !== null);
    expect(found).toEqual([...ids].reverse());
    expect((await gql(world.url, query, { filter: { tag, kind: 'PLAN' } })).data.artifacts.edges).toEqual([]);

    const request = taskRequest({ max_tokens: 3 });
    await post(world.url, '/v1/tasks', request);
    await readStream(world.url, request.task_id);
    const task = await gql(
      world.url,
      `query ($id: UUID!) { task(taskId: $id) { transcript { id kind tags digest artifactId sizeBytes } } }`,
      {
        id: request.task_id,
      },
    );
    const { transcript } = task.data.task;
    expect(transcript).toMatchObject({ kind: 'TRACE', tags: ['transcript'], digest: transcript.artifactId });
    expect(transcript.sizeBytes).toBeGreaterThan(100);
    const node = await gql(world.url, `query ($id: ID!) { node(id: $id) { ... on Artifact { artifactId } } }`, {
      id: transcript.id,
    });
    expect(node.data.node).toEqual({ artifactId: transcript.artifactId });
  });

  it('are kept through GraphQL too, with refusals as data', async () => {
    const mutation = `mutation ($input: CreateArtifactInput!) { createArtifact(input: $input) { __typename
      ... on ArtifactCreated { artifact { artifactId kind content tags } } ... on Refusal { code field } } }`;
    const input = { kind: 'OTHER', content: { via: 'graphql' }, tags: ['b', 'a'] };
    const { data } = await gql(world.url, mutation, { input });
    expect(data.createArtifact).toMatchObject({
      __typename: 'ArtifactCreated',
      artifact: { content: input.content, tags: ['a', 'b'] },
    });
    const viaRest = await create({ kind: 'other', content: input.content, tags: input.tags });
    expect(viaRest.id).toBe(data.createArtifact.artifact.artifactId);
    const bad = await gql(world.url, mutation, { input: { ...input, parent: `sha256:${'1'.repeat(64)}` } });
    expect(bad.data.createArtifact).toEqual({ __typename: 'InvalidParams', code: 'INVALID_PARAMS', field: 'parent' });
  });
});
