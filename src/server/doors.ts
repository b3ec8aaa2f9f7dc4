/** The doors over one set of services: GraphQL on three transports, REST, metrics and readiness. */
import type { IncomingMessage } from 'node:http';
import type { Environment } from '../config/environment.js';
import { artifactRoutes } from '../rest/artifacts.js';
import { catalogRoutes } from '../rest/catalog.js';
import { controlRoutes } from '../rest/control.js';
import { dataRoutes } from '../rest/data.js';
import { type Route, sendJson } from '../rest/router.js';
import { workerRoutes } from '../rest/workers.js';
import { buildSchema } from '../schema/schema.js';
import type { Services } from '../services/services.js';
import type { Supervisor } from '../services/supervision/supervisor.js';
import type { Database } from '../store/database.js';
import type { Telemetry } from '../telemetry/events.js';
import { createGraphiQL } from './graphiql.js';
import { createGraphQLDoor } from './graphql.js';
import type { Doors } from './http.js';
import { bearerOf, checkToken, type IdentityRules, identityOf, requireToken } from './identity.js';

export interface DoorsOptions {
  readonly services: Services;
  readonly supervisor: Supervisor;
  readonly db: Database;
  readonly telemetry: Telemetry;
  readonly rules: IdentityRules;
  readonly environment: Environment;
}

/** The token a socket brought: in `connection_init` (browsers cannot set headers), else with its upgrade. */
function socketToken(params: Readonly<Record<string, unknown>>, request: IncomingMessage): string | null {
  const given =
    params.token ?? params.authorization ?? params.Authorization ?? params['X-API-Key'] ?? params['x-api-key'];
  if (typeof given !== 'string') return bearerOf(request.headers);
  return given.replace(/^Bearer /i, '');
}

export function createDoors(options: DoorsOptions): Doors & { close(): Promise<void> } {
  const { services, telemetry, rules, db, supervisor } = options;
  const correlation = new WeakMap<IncomingMessage, string>();
  /** Of sockets: their token may come after their request. */
  const identities = new WeakMap<IncomingMessage, string>();
  const graphql = createGraphQLDoor({
    schema: buildSchema(),
    makeContext: (request) => ({
      services,
      prisma: db.prisma,
      correlationId: correlation.get(request) ?? '',
      identity: identities.get(request) ?? identityOf(bearerOf(request.headers), rules),
      nowMs: () => Date.now(),
    }),
    onInternalError: (error, correlationId) =>
      telemetry.log.error({ correlation_id: correlationId, err: error }, 'GraphQL operation failed'),
    authorize: (params, request) => {
      const caller = { headers: request.headers, remoteAddress: request.socket.remoteAddress ?? '' };
      const token = socketToken(params, request);
      const denial = checkToken(token, caller, rules);
      const correlationId = correlation.get(request) ?? '';
      if (denial === null) {
        identities.set(request, identityOf(token, rules));
        return { ok: true, acknowledge: { correlationId } };
      }
      telemetry.denied(denial.name, denial.code, correlationId);
      return { ok: false, reason: denial.name };
    },
    correlationOf: (request) => correlation.get(request) ?? '',
  });
  const graphiql = createGraphiQL({ title: 'llama-orch' });
  return {
    routes: [
      ...dataRoutes(services, { microbatch: options.environment.sseMicrobatch }),
      ...controlRoutes(services),
      ...workerRoutes({ telemetry, requireToken: ({ headers }) => requireToken(headers, rules) }),
      ...catalogRoutes(services),
      ...artifactRoutes(services),
      ...operationalRoutes(supervisor, telemetry, rules),
    ],
    graphql: (req, res, correlationId) => {
      correlation.set(req, correlationId);
      void graphql.handle(req, res);
    },
    graphiql,
    upgrade: (req, socket, head, correlationId) => {
      correlation.set(req, correlationId);
      graphql.handleUpgrade(req, socket, head);
    },
    close: () => graphql.dispose(),
  };
}

/** Readiness is told to everybody; why a pool is not ready may name files of this machine. */
function isStranger({ headers, socket }: IncomingMessage, rules: IdentityRules): boolean {
  return checkToken(bearerOf(headers), { headers, remoteAddress: socket.remoteAddress ?? '' }, rules) !== null;
}

function operationalRoutes(supervisor: Supervisor, telemetry: Telemetry, rules: IdentityRules): Route[] {
  return [
    {
      method: 'GET',
      path: '/ready',
      handler: async (call) => {
        const pools = supervisor.poolIds().map((id) => ({ id, ...supervisor.health(id) }));
        const ready = pools.some((pool) => pool.ready);
        const shown = isStranger(call.req, rules) ? [] : pools;
        sendJson(call.res, ready ? 200 : 503, {
          status: ready ? 'ready' : 'not ready',
          pools: shown.map(({ id, ready: poolReady, reasons }) => ({ id, ready: poolReady, reasons })),
        });
      },
    },
    {
      method: 'GET',
      path: '/metrics',
      handler: async (call) => {
        const text = await telemetry.scrape();
        call.res.writeHead(200, { 'content-type': telemetry.metrics.registry.contentType }).end(text);
      },
    },
  ];
}
