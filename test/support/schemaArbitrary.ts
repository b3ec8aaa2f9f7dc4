/** Requests that fast-check makes from contracts/openapi: as the schemas want them, and broken in one place. */
import fc from 'fast-check';
import { stringify } from 'lossless-json';
import type { Operation, Schema } from '../../src/rest/openapi.js';

/** Values that mean something to the server, by the name of the member; without them hardly a request would get far. */
export type Meaningful = Readonly<Record<string, readonly unknown[]>>;

/** A request as it goes over the wire. */
export interface WireRequest {
  readonly operationId: string;
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | null;
}

const INT32_MAX = 2 ** 31 - 1;
const INT64_MAX = (1n << 63n) - 1n;
const UUID = fc.stringMatching(/^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$/);
const JSON_VALUE = fc.oneof(fc.jsonValue({ maxDepth: 3 }), fc.bigInt());

function integer({ format, minimum, maximum }: Schema): fc.Arbitrary<unknown> {
  const [least, most] = format === 'int32' ? [BigInt(-INT32_MAX - 1), BigInt(INT32_MAX)] : [-INT64_MAX - 1n, INT64_MAX];
  const min = minimum === undefined ? least : BigInt(minimum);
  const max = maximum === undefined ? most : BigInt(maximum);
  return fc.oneof(fc.bigInt({ min, max: min + 100n < max ? min + 100n : max }), fc.bigInt({ min, max }));
}

function text({ format, pattern, minLength = 0, maxLength = 60 }: Schema): fc.Arbitrary<unknown> {
  if (format === 'uuid') return UUID;
  if (pattern?.includes('true|false') === true) return fc.constantFrom('true', 'false', '0', '100');
  const plain = fc.string({ unit: 'binary', minLength, maxLength: Math.min(maxLength, 60) });
  return pattern === undefined ? plain : plain.map((value) => value.replaceAll('\0', '.'));
}

function object(schema: Schema, meaningful: Meaningful): fc.Arbitrary<unknown> {
  const { properties = {}, required = [], additionalProperties } = schema;
  const members = Object.entries(properties).map(([name, member]) => [name, memberOf(name, member, meaningful)]);
  const named = fc.record<Record<string, unknown>, string>(Object.fromEntries(members), {
    requiredKeys: [...required],
  });
  const open = additionalProperties === true || Object.keys(properties).length === 0;
  return open ? fc.dictionary(fc.string({ maxLength: 8 }), JSON_VALUE, { maxKeys: 4 }) : named;
}

function memberOf(name: string, schema: Schema, meaningful: Meaningful): fc.Arbitrary<unknown> {
  const known = meaningful[name];
  const any = accepted(schema, meaningful);
  return known === undefined
    ? any
    : fc.oneof({ weight: 24, arbitrary: fc.constantFrom(...known) }, { weight: 1, arbitrary: any });
}

/** What the schema takes. */
function accepted(schema: Schema, meaningful: Meaningful): fc.Arbitrary<unknown> {
  if (schema.enum !== undefined) return fc.constantFrom(...schema.enum);
  switch (schema.type) {
    case 'integer':
      return integer(schema);
    case 'number':
      return fc.double({ noNaN: true, noDefaultInfinity: true });
    case 'boolean':
      return fc.boolean();
    case 'string':
      return text(schema);
    case 'array':
      return fc.array(accepted(schema.items ?? {}, meaningful), { maxLength: 4 });
    case 'object':
      return object(schema, meaningful);
    default:
      return JSON_VALUE;
  }
}

type Members = Record<string, unknown>;

/** What a client may get wrong in a body, each from a valid one. */
function broken(valid: unknown, { required = [] }: Schema): fc.Arbitrary<string> {
  const members = typeof valid === 'object' && valid !== null ? (valid as Members) : {};
  const names = fc.constantFrom(...Object.keys(members), ...required, 'unknown');
  const without = (name: string): Members =>
    Object.fromEntries(Object.entries(members).filter(([key]) => key !== name));
  const spelled = stringify(valid) ?? 'null';
  return fc.oneof(
    names.map((name) => stringify(without(name)) ?? ''),
    fc.tuple(names, JSON_VALUE).map(([name, value]) => stringify({ ...members, [name]: value }) ?? ''),
    fc.nat({ max: spelled.length }).map((length) => spelled.slice(0, length)),
    JSON_VALUE.map((value) => stringify(value) ?? ''),
    fc
      .constantFrom('1e999', '-0', '1.0', '01', '9'.repeat(400), '1e-400', 'NaN')
      .map((odd) => spelled.replace(/\d+(?=[,}])/, odd)),
    fc
      .constantFrom('\\u0000', '\\ud800', '\\uffff', '\u2028', '{{}}', '\\')
      .map((odd) => spelled.replace(/:"/g, `:"${odd}`)),
    fc.string({ unit: 'binary', maxLength: 20 }),
  );
}

function bodyOf(operation: Operation, meaningful: Meaningful): fc.Arbitrary<string | null> {
  const schema = operation.requestBody?.content['application/json']?.schema;
  if (schema === undefined) return fc.constantFrom(null, '{}', 'nonsense');
  const valid = accepted(schema, meaningful);
  return fc.oneof(
    valid.map((value) => stringify(value) ?? null),
    valid.chain((value) => broken(value, schema)),
  );
}

const ODD_TEXT = fc.oneof(
  UUID,
  fc.string({ unit: 'binary', minLength: 1, maxLength: 30 }),
  fc.constantFrom('%', '\0', '-1', ' '),
);

function pathOf({ path, parameters = [] }: Operation, ids: readonly unknown[]): fc.Arbitrary<string> {
  const segment = fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom(...ids.map(String)) },
    { weight: 1, arbitrary: ODD_TEXT },
  );
  // A lone surrogate has no place in a URL, and dots would be resolved on the way.
  const encoded = segment.map((text) => encodeURIComponent(text.toWellFormed()).replace(/^\.+$/, 'dots'));
  const queries = parameters
    .filter((one) => one.in === 'query')
    .map((one) => [one.name, fc.oneof(accepted(one.schema, {}), ODD_TEXT)]);
  return fc.tuple(encoded, fc.record(Object.fromEntries(queries), { requiredKeys: [] })).map(([id, query]) => {
    const given = Object.entries(query).map(
      ([name, value]) => `${name}=${encodeURIComponent(String(value).toWellFormed())}`,
    );
    return `${path.replace(/\{[^}]*\}/, id)}${given.length === 0 ? '' : `?${given.join('&')}`}`;
  });
}

function headersOf({ parameters = [], requestBody }: Operation): fc.Arbitrary<Record<string, string>> {
  const visible = fc.string({ unit: fc.constantFrom(...'abc 019-,;=:"\\/%.'), maxLength: 20 });
  const named = parameters
    .filter((one) => one.in === 'header')
    .map((one) => [
      one.name,
      fc.oneof(one.schema.type === 'integer' ? accepted(one.schema, {}).map(String) : visible, visible),
    ]);
  const type = fc.oneof(
    { weight: 8, arbitrary: fc.constant('application/json') },
    {
      weight: 1,
      arbitrary: fc.constantFrom(
        'application/json; charset=utf-8',
        'APPLICATION/JSON',
        'text/plain',
        'multipart/form-data',
        '',
      ),
    },
  );
  const all = { ...Object.fromEntries(named), ...(requestBody !== undefined && { 'content-type': type }) };
  return fc.record(all, { requiredKeys: requestBody === undefined ? [] : ['content-type'] }) as fc.Arbitrary<
    Record<string, string>
  >;
}

/** @param ids of what is there, for the paths. */
export function requestOf(
  operation: Operation,
  meaningful: Meaningful,
  ids: readonly unknown[],
): fc.Arbitrary<WireRequest> {
  const { operationId, method } = operation;
  return fc
    .tuple(pathOf(operation, ids), headersOf(operation), bodyOf(operation, meaningful))
    .map(([path, headers, body]) => ({ operationId, method, path, headers, body: method === 'GET' ? null : body }));
}
