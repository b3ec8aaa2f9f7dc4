/** What every answer of vLLM's server has: uvicorn's headers, a request's name, the time. */
import { randomUUID } from 'node:crypto';
import type { ServerResponse } from 'node:http';
import type { SimEngine } from '../engine.js';
import { type Call, send } from '../http.js';

export function sendJson(response: ServerResponse, status: number, body: unknown): void {
  send(response, status, 'application/json', JSON.stringify(body));
}

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
