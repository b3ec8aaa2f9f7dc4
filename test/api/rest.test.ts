import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { EndEvent } from '../../src/core/frame.js';
import { pipeEvents } from '../../src/rest/sse.js';
import { ask, get, indicesOf, post, readStream, type SseFrame, taskRequest, tokensOf } from '../support/rest.js';
import { simConfig, startWorld, type World } from '../support/world.js';

let world: World;

beforeAll(async () => {
  world = await startWorld({ config: simConfig({ tokensPerSecond: 200 }) });
});
afterAll(async () => {
  await world[Symbol.asyncDispose]();
});

async function submit(overrides: Record<string, unknown> = {}): Promise<string> {
  const request = taskRequest(overrides);
  const response = await post(world.url, '/v1/tasks', request);
  expect(response.status, await response.clone().text()).toBe(202);
  return request.task_id;
}

async function row(taskId: string) {
  const [task] = await world.database.query<Record<string, unknown>>(`SELECT * FROM tasks WHERE id = $1`, [taskId]);
  return task;
}

describe('a task through REST', () => {
  it('streams started, metrics, every token in order, end; then the lease is free and the transcript is kept', async () => {
    const taskId = await submit({ max_tokens: 12 });
    const frames = await readStream(world.url, taskId);
    expect(frames.map((frame) => frame.event)).toEqual(['started', 'metrics', ...Array(12).fill('token'), 'end']);
    expect(indicesOf(frames)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    expect(frames.at(-1)).toMatchObject({ id: '13', data: { tokens_out: 12 } });
    expect(await row(taskId)).toMatchObject({ status: 'SUCCEEDED', tokens_out: 12, finish_reason: 'length' });
    const leases = await world.database.query(`SELECT * FROM leases WHERE task_id = $1 AND released_at IS NULL`, [
      taskId,
    ]);
    expect(leases).toEqual([]);
    const [artifact] = await world.database.query<{ content: { text: string } }>(
      `SELECT a.content FROM artifacts a JOIN tasks t ON t.transcript_id = a.id WHERE t.id = $1`,
      [taskId],
    );
    expect(artifact?.content.text).toBe(tokensOf(frames).join(''));
  });

  it('gives a reader that comes back exactly the rest, live and from the database', async () => {
    const taskId = await submit({ max_tokens: 40 });
    const first = await readStream(world.url, taskId, {
      until: (frame) => frame.event === 'token' && frame.data.i === 7,
    });
    const rest = await readStream(world.url, taskId, { after: Number(first.at(-1)?.id) });
    expect(indicesOf([...first, ...rest])).toEqual(Array.from({ length: 40 }, (_, index) => index));
    const later = await readStream(world.url, taskId);
    expect(tokensOf(later)).toEqual(tokensOf([...first, ...rest]));
    for (const after of [0, 1, 20, 39, 40, 41, 500]) {
      const frames = await readStream(world.url, taskId, { after });
      expect(indicesOf(frames)).toEqual(Array.from({ length: Math.max(0, 40 - after) }, (_, index) => index + after));
      expect(frames.at(-1)?.event).toBe('end');
    }
  });

  it('repeats itself for the same seed, on another replica too', async () => {
    const taskIds = await Promise.all([1, 2, 3, 4].map(() => submit({ seed: 42, max_tokens: 30 })));
    const texts = await Promise.all(taskIds.map(async (id) => tokensOf(await readStream(world.url, id)).join('')));
    expect(new Set(texts).size).toBe(1);
    const replicas = await world.database.query(`SELECT DISTINCT replica_id FROM tasks WHERE id = ANY($1::uuid[])`, [
      taskIds,
    ]);
    expect(replicas.length).toBe(2);
  });

  it('admits the same task once, however often and at once', async () => {
    const request = taskRequest();
    const answers = await Promise.all(Array.from({ length: 30 }, () => post(world.url, '/v1/tasks', request)));
    expect(new Set(answers.map((answer) => answer.status))).toEqual(new Set([202]));
    expect(new Set(await Promise.all(answers.map((answer) => answer.text()))).size).toBe(1);
    const conflict = await post(world.url, '/v1/tasks', { ...request, prompt: 'something else' });
    expect(conflict.status).toBe(409);
    expect(await conflict.json()).toMatchObject({ code: 'INVALID_PARAMS', field: 'task_id' });
  });

  it('keeps the digits of an int64 seed', async () => {
    const request = JSON.stringify(taskRequest({ seed: 1 })).replace('"seed":1', '"seed":9007199254740993');
    expect((await post(world.url, '/v1/tasks', request)).status).toBe(202);
    const { task_id } = JSON.parse(request) as { task_id: string };
    expect((await row(task_id))?.seed).toBe('9007199254740993');
  });
});

describe('cancel', () => {
  it('stops a running task: no token after the answer, the slot free in the engine', async () => {
    const taskId = await submit({ max_tokens: 3000, ctx: 4096 });
    const reading = readStream(world.url, taskId);
    await readStream(world.url, taskId, { until: (frame) => frame.event === 'token' && frame.data.i === 5 });
    const answer = await post(world.url, `/v1/tasks/${taskId}/cancel`, {});
    expect(answer.status).toBe(204);
    const stored = await row(taskId);
    expect(stored).toMatchObject({ status: 'CANCELED' });
    expect(stored?.cancel_slot_free_at).not.toBeNull();
    const frames = await reading;
    expect(frames.at(-1)).toMatchObject({ event: 'end', data: { canceled: true, tokens_out: stored?.tokens_out } });
    expect(indicesOf(frames)).toHaveLength(Number(stored?.tokens_out));
    expect((await post(world.url, `/v1/tasks/${taskId}/cancel`, {})).status).toBe(204);
  });

  it('ends in one way only when cancel and completion race', async () => {
    const taskIds = await Promise.all(Array.from({ length: 24 }, () => submit({ max_tokens: 4 })));
    const readings = taskIds.map((taskId) => readStream(world.url, taskId));
    await Promise.all(
      taskIds.map(async (taskId, index) => {
        if (index % 2 === 0) await readStream(world.url, taskId, { until: (frame) => frame.data.i === index % 4 });
        await post(world.url, `/v1/tasks/${taskId}/cancel`, {});
      }),
    );
    for (const [index, reading] of readings.entries()) {
      const frames = await reading;
      expect(frames.filter((frame) => frame.event === 'end')).toHaveLength(1);
      expect(frames.at(-1)?.event).toBe('end');
      const again = await readStream(world.url, taskIds[index] ?? '');
      expect(tokensOf(again)).toEqual(tokensOf(frames));
    }
    const held = await world.database.query(`SELECT * FROM leases WHERE released_at IS NULL`);
    expect(held).toEqual([]);
  });
});

describe('bad input', () => {
  const cases: [string, Record<string, unknown>, string][] = [
    ['an unknown model', { model_ref: 'no-such-model' }, 'model_ref'],
    ['an engine no pool runs', { engine: 'vllm' }, 'engine'],
    ['an unknown engine', { engine: 'cuda' }, 'engine'],
    ['an unknown pool', { placement: { mode: 'pin', pin_pool_id: 'nowhere' } }, 'placement.pin_pool_id'],
    ['a malformed task_id', { task_id: 'not-a-uuid' }, 'task_id'],
    ['a malformed session_id', { session_id: '123' }, 'session_id'],
    ['zero ctx', { ctx: 0 }, 'ctx'],
    ['negative ctx', { ctx: -5 }, 'ctx'],
    ['a ctx above the pool', { ctx: 8192 }, 'ctx'],
    ['zero max_tokens', { max_tokens: 0 }, 'max_tokens'],
    ['negative max_tokens', { max_tokens: -1 }, 'max_tokens'],
    ['fractional max_tokens', { max_tokens: 1.5 }, 'max_tokens'],
    ['max_tokens above the context', { max_tokens: 4096 }, 'max_tokens'],
    ['zero deadline_ms', { deadline_ms: 0 }, 'deadline_ms'],
    ['negative deadline_ms', { deadline_ms: -1 }, 'deadline_ms'],
    ['a prompt of the wrong type', { prompt: 7 }, 'prompt'],
    ['a prompt with NUL', { prompt: 'a\u0000b' }, 'prompt'],
    ['a missing member', { priority: undefined }, 'priority'],
    ['a prompt that does not fit, counted by the engine', { prompt: 'sea '.repeat(5000), max_tokens: 10 }, 'prompt'],
  ];
  it.each(cases)('%s names the field and writes nothing', async (_name, overrides, field) => {
    const request = taskRequest(overrides);
    const response = await post(world.url, '/v1/tasks', request);
    const body = (await response.json()) as Record<string, unknown>;
    expect(response.status, JSON.stringify(body)).toBe(400);
    expect(body).toMatchObject({ code: 'INVALID_PARAMS', field, retriable: false });
    expect(String(body.message)).toContain(field);
    const rows = await world.database.query(`SELECT id FROM tasks WHERE session_id::text = $1`, [
      String(request.session_id),
    ]);
    expect(rows).toEqual([]);
  });

  it('answers bodies that are no task, and paths that are not served', async () => {
    expect((await post(world.url, '/v1/tasks', '{"prompt":')).status).toBe(400);
    expect((await post(world.url, '/v1/tasks', '[1,2]')).status).toBe(400);
    expect((await post(world.url, '/v1/tasks', '"text"')).status).toBe(400);
    expect((await post(world.url, '/v1/tasks', '['.repeat(20_000))).status).toBe(400);
    const deep = `${'{"a":'.repeat(300)}1${'}'.repeat(300)}`;
    const nested = await post(world.url, '/v1/tasks', JSON.stringify(taskRequest()).replace('{', `{"hint":${deep},`));
    expect(await nested.json()).toMatchObject({ code: 'INVALID_PARAMS', field: 'body' });
    // As many digits as a body holds: they are not worth a bigint.
    const digits = JSON.stringify(taskRequest({ seed: 1 })).replace('"seed":1', `"seed":${'9'.repeat(4_000_000)}`);
    expect(await (await post(world.url, '/v1/tasks', digits)).json()).toMatchObject({ field: 'seed' });
    expect(
      (await post(world.url, '/v1/tasks', 'a=b', { 'content-type': 'application/x-www-form-urlencoded' })).status,
    ).toBe(415);
    expect((await get(world.url, '/v1/tasks')).status).toBe(405);
    for (const path of [
      '/v1/chat/completions',
      '/v1/completions',
      '/v1/replicasets',
      '/nope',
      '//',
      '/%',
      '/v1/tasks/%ff',
    ]) {
      expect((await get(world.url, `${path}`)).status).toBe(404);
    }
  });

  it('refuses a 10 MB prompt with 413 and lives on', async () => {
    const response = await post(world.url, '/v1/tasks', taskRequest({ prompt: 'x'.repeat(10_000_000) }));
    expect(response.status).toBe(413);
    expect(await response.json()).toMatchObject({ code: 'INVALID_PARAMS', field: 'body' });
    expect((await get(world.url, '/health')).status).toBe(200);
  });

  it('knows no unknown task', async () => {
    for (const response of [
      await get(world.url, `/v1/tasks/${randomUUID()}/stream`),
      await post(world.url, `/v1/tasks/${randomUUID()}/cancel`, {}),
      await get(world.url, `/v1/sessions/${randomUUID()}`),
    ]) {
      expect(response.status).toBe(404);
      expect(await response.json()).toMatchObject({ code: 'INVALID_PARAMS' });
    }
    expect((await get(world.url, '/v1/tasks/xyz/stream')).status).toBe(400);
    expect((await get(world.url, `/v1/tasks/${randomUUID()}/stream?after=-2`)).status).toBe(400);
  });
});

describe('the HTTP door', () => {
  it('carries the correlation id on every answer', async () => {
    const given = await get(world.url, '/health', { 'x-correlation-id': 'my-id' });
    expect(given.headers.get('x-correlation-id')).toBe('my-id');
    const made = await get(world.url, '/nope');
    expect(made.headers.get('x-correlation-id')).toMatch(/^[0-9a-f-]{36}$/);
  });

  it('lets go of a client that leaves while its stream is written', async () => {
    let answered: Promise<void> | undefined;
    let closed = 0;
    const end: EndEvent = {
      kind: 'end',
      seq: 1,
      atMs: 0,
      tokensOut: 0,
      decodeMs: 0,
      canceled: false,
      finishReason: 'stop',
      resultId: 'r',
    };
    const reader = {
      next: () => Promise.resolve([end]),
      close: () => {
        closed += 1;
      },
    };
    const server = createServer((_req, res) => {
      const leave = async () => {
        res.destroy();
        await once(res, 'close');
      };
      answered = pipeEvents(reader, res, { microbatch: false, headers: {}, result: leave });
    });
    await once(server.listen(0, '127.0.0.1'), 'listening');
    try {
      const answer = fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}`).then((one) => one.text());
      await expect(answer).rejects.toThrow();
      await answered;
      expect(closed).toBeGreaterThan(0);
    } finally {
      server.close();
    }
  });

  it('keeps a stream alive while there is nothing to tell', async () => {
    let hasGone = () => {};
    const gone = new Promise<null>((resolve) => {
      hasGone = () => resolve(null);
    });
    // It waits for its first event, for ever.
    const reader = { next: () => gone, close: hasGone };
    let answered: Promise<void> | undefined;
    const result = () => Promise.resolve(null);
    const server = createServer((_req, res) => {
      answered = pipeEvents(reader, res, { microbatch: false, keepAliveMs: 10, headers: {}, result });
    });
    await once(server.listen(0, '127.0.0.1'), 'listening');
    try {
      const { body } = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
      let text = '';
      for await (const chunk of body as unknown as AsyncIterable<Uint8Array>) {
        text += Buffer.from(chunk).toString();
        if (text.length >= 18) break;
      }
      expect(text.slice(0, 18)).toBe(': ka\n\n'.repeat(3));
      await answered;
    } finally {
      server.close();
    }
  });

  it('puts tokens that wait together into one event, where that is asked for', async () => {
    await using batched = await startWorld({ config: simConfig({ replicas: 1 }), env: { ORCHD_SSE_MICROBATCH: '1' } });
    const task = taskRequest({ max_tokens: 12 });
    expect((await post(batched.url, '/v1/tasks', task)).status).toBe(202);
    await readStream(batched.url, task.task_id);
    // A late reader finds all of them.
    const tokens = (frames: SseFrame[]) =>
      frames
        .filter(({ event }) => event === 'token')
        .map(({ id, data }) => ({ id, batch: data.batch as { t: string; i: number }[] }));
    const [late, ...more] = tokens(await readStream(batched.url, task.task_id));
    expect([more, late?.id, late?.batch.map(({ i }) => i)]).toEqual([[], '12', [...Array(12).keys()]]);
    // From inside of it the rest comes, and what is alone comes alone.
    const [rest] = tokens(await readStream(batched.url, task.task_id, { after: 5 }));
    expect([rest?.id, rest?.batch]).toEqual(['12', late?.batch.slice(5)]);
    const last = (await readStream(batched.url, task.task_id, { after: 11 })).filter(({ event }) => event === 'token');
    expect(last).toEqual([{ event: 'token', id: '12', data: late?.batch[11] }]);
  });

  it('refuses foreign origins', async () => {
    const response = await post(world.url, '/v1/tasks', taskRequest(), { origin: 'http://evil.example' });
    expect(response.status).toBe(403);
  });

  it('serves sessions, health, capabilities and metrics', async () => {
    const sessionId = randomUUID();
    await readStream(world.url, await submit({ session_id: sessionId }));
    const session = (await (await get(world.url, `/v1/sessions/${sessionId}`)).json()) as {
      turns: number;
      ttl_ms_remaining: number;
    };
    expect(session.turns).toBe(1);
    expect(session.ttl_ms_remaining).toBeGreaterThan(500_000);
    expect((await ask(world.url, 'DELETE', `/v1/sessions/${sessionId}`)).status).toBe(204);
    expect((await get(world.url, `/v1/sessions/${sessionId}`)).status).toBe(404);
    expect(await (await get(world.url, '/v1/pools/sim/health')).json()).toMatchObject({
      live: true,
      ready: true,
      draining: false,
    });
    expect(await (await get(world.url, '/pools/sim/status')).json()).toMatchObject({
      pool_id: 'sim',
      slots_total: 4,
      last_error: null,
    });
    expect(await (await get(world.url, '/v1/capabilities')).json()).toMatchObject({
      engines: [{ engine: 'llamacpp', ctx_max: 4096 }],
    });
    expect(await (await get(world.url, '/metrics')).text()).toMatch(
      /tasks_enqueued_total\{[^}]*pool_id="sim"[^}]*\} [1-9]/,
    );
  });
});
