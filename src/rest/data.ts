/** The data plane of the original contract: tasks and sessions. */
import { budgetLeft } from '../core/budget.js';
import { checkDisconnectGrace, disconnectGrace } from '../core/disconnect.js';
import { invalid, RefusalError } from '../core/errors.js';
import type { Services } from '../services/services.js';
import { budgetHeaders, budgetMembers } from './budget.js';
import { type Call, type Route, sendJson } from './router.js';
import { pipeEvents } from './sse.js';
import { parseTaskRequest, parseUuidParam } from './wire.js';

const MAX_INDEX = 2 ** 31 - 1;

/** Where to go on: `Last-Event-ID`, else `?after=`, else from the beginning (-1). */
function resumeIndex(call: Call): number {
  const header = call.req.headers['last-event-id'];
  const given = (typeof header === 'string' && header !== '' ? header : null) ?? call.query.get('after');
  if (given === null) return -1;
  const index = Number(given);
  if (/^-?\d{1,10}$/.test(given) && index >= -1 && index <= MAX_INDEX) return index;
  throw new RefusalError(invalid('after', 'must be the index of an event, a whole number of at least -1'));
}

/** `?cancel_on_disconnect=true` or `=<ms>`: the task is to end when its last reader has gone. */
function disconnectGraceOf(call: Call): number | null {
  const given = call.query.get('cancel_on_disconnect') ?? 'false';
  const graceMs = disconnectGrace(/^(true|false)$/.test(given) ? given === 'true' : Number(given || Number.NaN));
  const broken = checkDisconnectGrace(graceMs === 'invalid' ? Number.NaN : graceMs);
  if (broken !== null) throw new RefusalError(broken);
  return graceMs === 'invalid' ? null : graceMs;
}

export function dataRoutes(services: Services, options: { readonly microbatch: boolean }): Route[] {
  return [
    {
      method: 'POST',
      path: '/v1/tasks',
      handler: async (call) => {
        const receipt = await services.admission.submit(parseTaskRequest(await call.body()), call);
        const { taskId, queuePosition, predictedStartMs, backoffMs } = receipt;
        const body = { task_id: taskId, queue_position: queuePosition, predicted_start_ms: predictedStartMs };
        sendJson(call.res, 202, { ...body, backoff_ms: backoffMs }, budgetHeaders(receipt.budget));
      },
    },
    {
      method: 'GET',
      path: '/v1/tasks/{id}/stream',
      handler: async (call) => {
        const taskId = parseUuidParam('id', call.params.id);
        const reader = await services.streams.open(taskId, resumeIndex(call), disconnectGraceOf(call));
        const headers = budgetHeaders(await services.budgets.ofTask(taskId));
        const result = (resultId: string) => services.tasks.result(resultId);
        await pipeEvents(reader, call.res, { ...options, headers, result });
      },
    },
    {
      method: 'POST',
      path: '/v1/tasks/{id}/cancel',
      handler: async (call) => {
        await services.cancellation.cancel(parseUuidParam('id', call.params.id));
        call.res.writeHead(204).end();
      },
    },
    {
      method: 'GET',
      path: '/v1/sessions/{id}',
      handler: async (call) => {
        const session = await services.sessions.get(parseUuidParam('id', call.params.id));
        const ttlMs = Math.max(0, Math.round(session.ttlMsRemaining));
        const kvWarmth = services.sessions.isWarm(session.id);
        const kvBytes = await services.sessions.kvBytes(session.id);
        const kv = { kv_bytes: kvBytes, kv_warmth: kvWarmth };
        const left = budgetMembers(budgetLeft(session.budget));
        sendJson(call.res, 200, { ttl_ms_remaining: ttlMs, turns: session.turns, ...kv, ...left });
      },
    },
    {
      method: 'DELETE',
      path: '/v1/sessions/{id}',
      handler: async (call) => {
        await services.sessions.delete(parseUuidParam('id', call.params.id));
        call.res.writeHead(204).end();
      },
    },
  ];
}
