/** Answers and events of a running server, held against contracts/openapi. Each check throws and says where and what. */
import { parse } from 'lossless-json';
import {
  type MediaType,
  type Operation,
  type ResponseSpec,
  readOperations,
  type Schema,
} from '../../src/rest/openapi.js';
import { parseNumber } from '../../src/rest/router.js';
import { type Check, compile } from '../../src/rest/validator.js';

export const OPERATIONS: readonly Operation[] = readOperations('contracts/openapi');

export function operation(operationId: string): Operation {
  const found = OPERATIONS.find((one) => one.operationId === operationId);
  if (found === undefined) throw new Error(`the contract has no operation ${operationId}`);
  return found;
}

const checks = new Map<Schema, Check>();

export function checkOf(schema: Schema): Check {
  const check = checks.get(schema) ?? compile(schema, 'response');
  checks.set(schema, check);
  return check;
}

export function examplesOf({ example, examples }: Pick<MediaType, 'example' | 'examples'>): unknown[] {
  return [...(example === undefined ? [] : [example]), ...Object.values(examples ?? {}).map(({ value }) => value)];
}

/** Of every operation that has this path, by method. */
function operationsAt(path: string): Operation[] {
  return OPERATIONS.filter((one) => new RegExp(`^${one.path.replace(/\{[^}]*\}/g, '[^/]+')}$`).test(path));
}

/** Null: the contract has no such path, or not by this method. */
export function operationFor(method: string, path: string): Operation | null {
  return operationsAt(path).find((one) => one.method === method) ?? null;
}

/** What the contract says of this answer. Paths and methods that it does not have are answered alike everywhere. */
function specFor(method: string, path: string, status: number): ResponseSpec {
  const there = operationsAt(path);
  const served = there.find((one) => one.method === (method === 'HEAD' ? 'GET' : method));
  if (served !== undefined && !(method === 'HEAD' && status === 405)) {
    const spec = served.responses[String(status)];
    if (spec === undefined) throw new Error(`${served.operationId} has no status ${status} in the contract`);
    return spec;
  }
  const { responses } = operation('getSession');
  if (there.length > 0 && method === 'OPTIONS' && status === 204) return { headers: responses['204']?.headers ?? {} };
  const usual = there.length > 0 ? 405 : 404;
  const spec = responses[status === usual ? '404' : [401, 403, 503].includes(status) ? String(status) : ''];
  if (spec === undefined)
    throw new Error(`${method} ${path} is not in the contract: ${usual} was expected, not ${status}`);
  return spec;
}

function checkHeaders({ headers = {} }: ResponseSpec, given: Headers): void {
  for (const [name, { schema, required }] of Object.entries(headers)) {
    const text = given.get(name);
    if (text === null && required === true) throw new Error(`the header ${name} is missing`);
    if (text === null) continue;
    const value = schema.type === 'integer' || schema.type === 'number' ? Number(text) : text;
    const problem = checkOf(schema)(value);
    if (problem !== null) throw new Error(`the header ${name} ${problem.message}, and is ${text}`);
  }
}

async function checkBody({ content }: ResponseSpec, response: Response): Promise<void> {
  const type = response.headers.get('content-type')?.split(';')[0] ?? null;
  if (content === undefined) {
    const text = await response.text();
    if (text !== '') throw new Error(`there should be no body, and there is ${text}`);
    return;
  }
  const media = content[type ?? ''];
  if (media === undefined) throw new Error(`the content-type is ${type}, not ${Object.keys(content)}`);
  if (type !== 'application/json') return;
  const text = await response.text();
  // As a client must that keeps the digits of an int64.
  const problem = checkOf(media.schema)(parse(text, undefined, parseNumber));
  if (problem !== null) throw new Error(`${problem.field || 'the body'} ${problem.message}: ${text}`);
}

/** Takes a clone's body; of a stream it looks at the head only. */
export async function checkResponse(method: string, path: string, response: Response): Promise<void> {
  const [bare = ''] = path.split('?');
  // Another contract; and what a test asks of a simulated engine.
  if (bare === '/graphql' || bare.startsWith('/sim/')) return;
  try {
    const spec = specFor(method, bare, response.status);
    checkHeaders(spec, response.headers);
    if (response.status === 405 && response.headers.get('allow') === null)
      throw new Error('the header Allow is missing');
    if (method === 'HEAD' || response.headers.get('content-type')?.startsWith('text/event-stream')) return;
    await checkBody(spec, response);
  } catch (error) {
    const what = error instanceof Error ? error.message : error;
    throw new Error(`the answer ${response.status} to ${method} ${path} breaks the contract: ${what}`, {
      cause: error,
    });
  }
}

const EVENTS = operation('streamTask').responses['200']?.content?.['text/event-stream']?.['x-events'] ?? {};

/** Holds the events of one connection against the contract: their data, and their order. */
export class StreamCheck {
  #ended = false;
  #begun = false;
  #nextToken: number | null = null;

  event(name: string, data: unknown): void {
    try {
      this.#data(name, data);
      this.#order(name, data as { i?: number; batch?: { i: number }[] });
    } catch (error) {
      const what = error instanceof Error ? error.message : error;
      throw new Error(`the event ${name} ${JSON.stringify(data)} breaks the contract: ${what}`, { cause: error });
    }
  }

  #data(name: string, data: unknown): void {
    const schema = EVENTS[name];
    if (schema === undefined) throw new Error('there is no such event');
    const problem = checkOf(schema)(data);
    if (problem !== null) throw new Error(`${problem.field} ${problem.message}`);
  }

  #order(name: string, data: { i?: number; batch?: { i: number }[] }): void {
    if (this.#ended) throw new Error('it comes after the end');
    if (name === 'started' && this.#begun) throw new Error('it is not the first');
    this.#begun = true;
    this.#ended = name === 'end' || name === 'error';
    if (name !== 'token') return;
    for (const { i } of data.batch ?? [{ i: data.i ?? 0 }]) {
      if (this.#nextToken !== null && i !== this.#nextToken) throw new Error(`token ${this.#nextToken} was expected`);
      this.#nextToken = i + 1;
    }
  }
}
