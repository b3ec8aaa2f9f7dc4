/**
 * Where workers of the original system announce themselves. Engines here are started by their pools, so this registers
 * nothing: it tells a worker whether its token is right, and leaves a line in the log.
 */
import type { IncomingMessage } from 'node:http';
import { z } from 'zod';
import { invalid, RefusalError } from '../core/errors.js';
import type { Telemetry } from '../telemetry/events.js';
import { type Route, sendJson } from './router.js';

/** Why a token does not do, as every door says it. */
interface TokenDenial {
  readonly status: number;
  readonly name: string;
  readonly code: number;
  readonly message: string;
}

export interface WorkerDoor {
  readonly telemetry: Telemetry;
  /** A token alone may do this, from wherever; null: it is right. */
  readonly requireToken: (req: IncomingMessage) => TokenDenial | null;
}

const Name = z.string().regex(/^[\w.@:-]{1,128}$/, 'must be 1 to 128 of letters, digits and _ . @ : -');
const WorkerRequest = z.object({ pool_id: Name.nullish(), replica_id: Name.nullish() });

export function workerRoutes({ telemetry, requireToken }: WorkerDoor): Route[] {
  return [
    {
      method: 'POST',
      path: '/v1/workers/register',
      handler: async (call) => {
        const denial = requireToken(call.req);
        if (denial !== null) {
          const { status, name, code, message } = denial;
          telemetry.denied(name, code, call.correlationId);
          const body = { code, error: name, message, retriable: false };
          return sendJson(call.res, status, body, { connection: 'close', 'www-authenticate': 'Bearer' });
        }
        const parsed = WorkerRequest.safeParse(await call.body());
        if (!parsed.success) {
          const issue = parsed.error.issues[0];
          throw new RefusalError(invalid(issue?.path.join('.') || 'body', issue?.message ?? 'is not valid'));
        }
        const { pool_id: poolId = null, replica_id: replicaId = null } = parsed.data;
        const { identity, correlationId } = call;
        telemetry.workerRegistered({ identity, correlationId, poolId, replicaId });
        sendJson(call.res, 200, { ok: true, identity, pool_id: poolId, replica_id: replicaId });
      },
    },
  ];
}
