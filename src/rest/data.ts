/** The data plane of the original contract: tasks and sessions. */
import { budgetLeft } from '../core/budget.js';
import { checkDisconnectGrace, disconnectGrace } from '../core/disconnect.js';
import { invalid, RefusalError } from '../core/errors.js';
import type { Services } from '../services/services.js';
import { budgetHeaders, budgetMembers } from './budget.js';
import type { components } from './generated/data.js';
import { type Call, type Route, sendJson } from './router.js';
import { pipeEvents } from './sse.js';
import { submissionOf, type TaskRequest } from './wire.js';

type AdmissionResponse = components['schemas']['AdmissionResponse'];
type SessionInfo = components['schemas']['SessionInfo'];

/** Where to go on: `Last-Event-ID`, else `?after=`, else from the beginning (-1). The contract has seen to both. */
function resumeIndex(call: Call): number {
  const header = call.req.headers['last-event-id'];
  const given = (typeof header === 'string' ? header : '') || call.query.get('after');
  return given === null || given === '' ? -1 : Number(given);
}

/** Such a request may only read: who follows a link has not decided what it does. */
function isLinkFromElsewhere({ req: { headers } }: Call): boolean {
  const site = headers['sec-fetch-site'];
  return headers.origin === undefined && (site === 'cross-site' || site === 'same-site');
}

/** `?cancel_on_disconnect=true` or `=<ms>`: the task is to end when its last reader has gone. */
function disconnectGraceOf(call: Call): number | null {
  const given = call.query.get('cancel_on_disconnect') ?? 'false';
  const graceMs = disconnectGrace(/^(true|false)$/.test(given) ? given === 'true' : Number(given || Number.NaN));
  const broken = checkDisconnectGrace(graceMs === 'invalid' ? Number.NaN : graceMs);
  if (broken !== null) throw new RefusalError(broken);
  if (graceMs !== null && isLinkFromElsewhere(call)) {
    throw new RefusalError(invalid('cancel_on_disconnect', 'is not taken from a link on another page'));
  }
  return graceMs === 'invalid' ? null : graceMs;
}

export function dataRoutes(services: Services, options: { readonly microbatch: boolean }): Route[] {
  return [
    {
      method: 'POST',
      path: '/v1/tasks',
      handler: async (call) => {
        const request = (await call.body()) as TaskRequest;
        const receipt = await services.admission.submit(submissionOf(request), call);
        const answer: AdmissionResponse = {
          task_id: receipt.taskId,
          queue_position: receipt.queuePosition,
          predicted_start_ms: receipt.predictedStartMs,
          backoff_ms: receipt.backoffMs,
        };
        sendJson(call.res, 202, answer, budgetHeaders(receipt.budget));
      },
    },
    {
      method: 'GET',
      path: '/v1/tasks/{id}/stream',
      streams: true,
      handler: async (call) => {
        const taskId = call.params.id ?? '';
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
        await services.cancellation.cancel(call.params.id ?? '');
        call.res.writeHead(204).end();
      },
    },
    {
      method: 'GET',
      path: '/v1/sessions/{id}',
      handler: async (call) => {
        const session = await services.sessions.get(call.params.id ?? '');
        const ttlMs = Math.max(0, Math.round(session.ttlMsRemaining));
        const kvWarmth = services.sessions.isWarm(session.id);
        const kvBytes = await services.sessions.kvBytes(session.id);
        const info: SessionInfo = {
          ttl_ms_remaining: ttlMs,
          turns: session.turns,
          kv_bytes: kvBytes,
          kv_warmth: kvWarmth,
          ...budgetMembers(budgetLeft(session.budget)),
        };
        sendJson(call.res, 200, info);
      },
    },
    {
      method: 'DELETE',
      path: '/v1/sessions/{id}',
      handler: async (call) => {
        await services.sessions.delete(call.params.id ?? '');
        call.res.writeHead(204).end();
      },
    },
  ];
}
