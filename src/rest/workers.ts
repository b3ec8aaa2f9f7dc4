/**
 * Where workers of the original system announce themselves. Engines here are started by their pools, so this registers
 * nothing: it tells a worker whether its token is right, and leaves a line in the log.
 */
import type { IncomingMessage } from 'node:http';
import type { Telemetry } from '../telemetry/events.js';
import type { components } from './generated/control.js';
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

type WorkerRequest = components['schemas']['WorkerRegistration'];

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
        const { pool_id, replica_id } = (await call.body()) as WorkerRequest;
        const poolId = pool_id ?? null;
        const replicaId = replica_id ?? null;
        const { identity, correlationId } = call;
        telemetry.workerRegistered({ identity, correlationId, poolId, replicaId });
        sendJson(call.res, 200, { ok: true, identity, pool_id: poolId, replica_id: replicaId });
      },
    },
  ];
}
