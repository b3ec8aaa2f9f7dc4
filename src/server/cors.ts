/** Answers for pages of other origins. Off unless the configuration lists an origin; no cookies are ever involved. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { IdentityRules } from './identity.js';

const ALLOW_METHODS = 'GET, POST, DELETE';
const ALLOW_HEADERS = 'authorization, x-api-key, content-type, x-correlation-id, last-event-id';
/** All that the contract names. */
export const EXPOSE_HEADERS =
  'x-correlation-id, location, retry-after, www-authenticate, x-backoff-ms, x-budget-tokens-remaining, x-budget-time-remaining-ms, x-budget-cost-remaining';
const PREFLIGHT_LIFE_S = 600;

/**
 * Lets a page of a listed origin read the answer.
 * @returns true when the request was its browser's question beforehand, and is answered.
 */
export function answerCors(req: IncomingMessage, res: ServerResponse, rules: IdentityRules): boolean {
  if (rules.origins.length === 0) return false;
  res.setHeader('vary', 'origin');
  const { origin } = req.headers;
  if (origin === undefined || !rules.origins.includes(origin)) return false;
  res.setHeader('access-control-allow-origin', origin);
  res.setHeader('access-control-expose-headers', EXPOSE_HEADERS);
  if (req.method !== 'OPTIONS' || req.headers['access-control-request-method'] === undefined) return false;
  res.writeHead(204, {
    'access-control-allow-methods': ALLOW_METHODS,
    'access-control-allow-headers': ALLOW_HEADERS,
    'access-control-max-age': String(PREFLIGHT_LIFE_S),
  });
  res.end();
  return true;
}
