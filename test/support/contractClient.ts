/** A client made from contracts/openapi: it knows operations by their ids, and says what came of each. */
import type { Operation, Parameter } from '../../src/rest/openapi.js';
import { examplesOf, operation } from './contract.js';
import { ask as askRaw } from './raw.js';
import { ask, readStream, type SseFrame } from './rest.js';

/** What differs from the examples of the contract. */
export interface CallOptions {
  /** Of parameters, by name. */
  readonly parameters?: Readonly<Record<string, string>>;
  readonly body?: unknown;
  /** As it is sent; it wins over `body`. */
  readonly text?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Record<string, unknown>;
}

function textOf(parameter: Parameter, { parameters = {} }: CallOptions): string | null {
  const given = parameters[parameter.name];
  if (given !== undefined) return given;
  return parameter.required === true ? String(examplesOf(parameter)[0]) : null;
}

function pathOf({ path, parameters = [] }: Operation, options: CallOptions): string {
  const query = new URLSearchParams();
  let filled = path;
  for (const parameter of parameters) {
    const value = textOf(parameter, options);
    if (value === null) continue;
    if (parameter.in === 'path') filled = filled.replace(`{${parameter.name}}`, encodeURIComponent(value));
    if (parameter.in === 'query') query.set(parameter.name, value);
  }
  return query.size === 0 ? filled : `${filled}?${query}`;
}

function initOf(
  { parameters = [], requestBody }: Operation,
  options: CallOptions,
): { headers: Record<string, string>; body?: string } {
  const headers: Record<string, string> = {};
  for (const parameter of parameters) {
    const value = parameter.in === 'header' ? textOf(parameter, options) : null;
    if (value !== null) headers[parameter.name] = value;
  }
  if (requestBody === undefined) return { headers: { ...headers, ...options.headers } };
  const example = examplesOf(requestBody.content['application/json'] ?? {})[0];
  const body = options.text ?? JSON.stringify(options.body === undefined ? example : options.body);
  return { headers: { 'content-type': 'application/json', ...headers, ...options.headers }, body };
}

/** Keeps what each operation answered with: `createTask 429` with the codes of its envelopes. */
export class ContractClient {
  readonly seen: Map<string, Set<string>>;
  readonly #url: string;
  readonly #headers: Readonly<Record<string, string>>;

  /** @param headers of every request. */
  constructor(url: string, headers: Readonly<Record<string, string>> = {}, seen = new Map<string, Set<string>>()) {
    this.#url = url;
    this.#headers = headers;
    this.seen = seen;
  }

  async call(operationId: string, options: CallOptions = {}): Promise<Answer> {
    const spec = operation(operationId);
    const headers = { ...this.#headers, ...options.headers };
    const response = await ask(this.#url, spec.method, pathOf(spec, options), initOf(spec, { ...options, headers }));
    const text = response.headers.get('content-type')?.startsWith('application/json') ? await response.text() : '';
    if (text === '') await response.body?.cancel();
    const body = text === '' ? {} : (JSON.parse(text) as Record<string, unknown>);
    this.#note(`${operationId} ${response.status}`, body);
    return { status: response.status, headers: response.headers, body };
  }

  /** As if this server had another name, which `fetch` cannot say. @returns the status. */
  async callAs(host: string, operationId: string): Promise<number> {
    const spec = operation(operationId);
    const { headers, ...body } = initOf(spec, {});
    const sent = { method: spec.method, path: pathOf(spec, {}), headers: { ...headers, host }, ...body };
    const { status, text } = await askRaw(this.#url, sent);
    this.#note(`${operationId} ${status}`, JSON.parse(text) as Record<string, unknown>);
    return status;
  }

  /** With a header twice that may come once: what is malformed as HTTP. @returns the status. */
  async callMalformed(operationId: string): Promise<number> {
    const spec = operation(operationId);
    const { headers, ...body } = initOf(spec, {});
    const once = Object.entries(headers).flat();
    const twice = [
      'host',
      '127.0.0.1',
      'host',
      '127.0.0.1',
      'content-length',
      String(Buffer.byteLength(body.body ?? '')),
    ];
    const sent = { method: spec.method, path: pathOf(spec, {}), headers: [...once, ...twice], ...body };
    const { status, text } = await askRaw(this.#url, sent);
    this.#note(`${operationId} ${status}`, JSON.parse(text) as Record<string, unknown>);
    return status;
  }

  /** The same client of another server; what either has seen is kept together. */
  of(url: string): ContractClient {
    return new ContractClient(url, this.#headers, this.seen);
  }

  /** All events of a task, to its end. */
  async events(taskId: string): Promise<SseFrame[]> {
    const frames = await readStream(this.#url, taskId);
    const last = frames.at(-1);
    this.#note('streamTask 200', last?.event === 'error' ? last.data : {});
    return frames;
  }

  #note(key: string, { code, error }: Record<string, unknown>): void {
    const codes = this.seen.get(key) ?? new Set();
    this.seen.set(key, codes);
    const name = error ?? code;
    if (typeof name === 'string') codes.add(name);
  }
}
