/** What every answer of vLLM's server has: uvicorn's headers, a request's name, the time. */
import { randomUUID } from 'node:crypto';
import type { SimEngine } from '../engine.js';
import type { Call } from '../http.js';

/** `PREFIX-NAME`: the name is the header's, else the body's, else made up. */
export function answerId(prefix: string, { request }: Call, named: string | null = null): string {
  const header = request.headers['x-request-id'];
  const name = typeof header === 'string' && header !== '' ? header : named;
  return `${prefix}-${name ?? randomUUID().replaceAll('-', '')}`;
}

/** Unix time as the server tells it. */
export function nowSeconds(engine: SimEngine): number {
  return Math.floor(engine.toldMs(Date.now()) / 1000);
}
