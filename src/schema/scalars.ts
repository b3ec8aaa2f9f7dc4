/** Scalars of the wire. A value that does not fit is an error of the caller, with the code the other refusals carry. */
import { GraphQLError, GraphQLScalarType, Kind, type ValueNode, valueFromASTUntyped } from 'graphql';
import { disconnectGrace } from '../core/disconnect.js';
import { isUuid } from '../core/ids.js';
import { builder } from './builder.js';

function refused(message: string): GraphQLError {
  return new GraphQLError(message, { extensions: { code: 'INVALID_PARAMS' } });
}

function textOf(node: ValueNode, what: string): string {
  if (node.kind === Kind.STRING || node.kind === Kind.INT) return node.value;
  throw refused(`${what} must be a string.`);
}

function parseDateTime(value: unknown): Date {
  const date = typeof value === 'string' ? new Date(value) : new Date(Number.NaN);
  if (Number.isNaN(date.getTime())) throw refused('DateTime must be an RFC 3339 timestamp.');
  return date;
}

function parseBigIntValue(value: unknown): bigint {
  if (typeof value === 'number' && Number.isSafeInteger(value)) return BigInt(value);
  if (typeof value === 'string' && /^-?[0-9]{1,20}$/.test(value)) return BigInt(value);
  throw refused('BigInt must be a decimal integer, as a string when it does not fit a number exactly.');
}

function parseUuid(value: unknown): string {
  if (typeof value === 'string' && isUuid(value)) return value.toLowerCase();
  throw refused('UUID must be 8-4-4-4-12 hex digits.');
}

builder.addScalarType(
  'DateTime',
  new GraphQLScalarType<Date, string>({
    name: 'DateTime',
    description: 'A moment, as an RFC 3339 timestamp in UTC.',
    specifiedByURL: 'https://www.rfc-editor.org/rfc/rfc3339',
    serialize: (value) => (value instanceof Date ? value : new Date(Number(value))).toISOString(),
    parseValue: parseDateTime,
    parseLiteral: (node) => parseDateTime(textOf(node, 'DateTime')),
  }),
);

builder.addScalarType(
  'BigInt',
  new GraphQLScalarType<bigint, string>({
    name: 'BigInt',
    description: 'A 64-bit integer, as a decimal string on the wire.',
    specifiedByURL: 'https://spec.graphql.org/draft/#sec-Int',
    serialize: (value) => String(value),
    parseValue: parseBigIntValue,
    parseLiteral: (node) => parseBigIntValue(textOf(node, 'BigInt')),
  }),
);

builder.addScalarType(
  'UUID',
  new GraphQLScalarType<string, string>({
    name: 'UUID',
    description: 'A UUID: any 8-4-4-4-12 hex digits, whatever their version; lower case in answers.',
    specifiedByURL: 'https://www.rfc-editor.org/rfc/rfc9562',
    serialize: (value) => String(value),
    parseValue: parseUuid,
    parseLiteral: (node) => parseUuid(textOf(node, 'UUID')),
  }),
);

function parseGrace(value: unknown): number | null {
  const graceMs = disconnectGrace(value);
  if (graceMs !== 'invalid') return graceMs;
  throw refused('DisconnectGrace must be true, false or a whole number of milliseconds.');
}

builder.addScalarType(
  'DisconnectGrace',
  new GraphQLScalarType<number | null, boolean | number>({
    name: 'DisconnectGrace',
    description:
      'How long readers may be gone: milliseconds, from a second to a day; `true` is 5000, `false` is for ever.',
    serialize: (value) => (typeof value === 'number' ? value : false),
    parseValue: parseGrace,
    parseLiteral: (node) => parseGrace(valueFromASTUntyped(node)),
  }),
);

builder.addScalarType(
  'JSON',
  new GraphQLScalarType<unknown, unknown>({
    name: 'JSON',
    description: 'Any JSON value; used only where the content belongs to somebody else.',
    specifiedByURL: 'https://www.rfc-editor.org/rfc/rfc8259',
    serialize: (value) => value,
    parseValue: (value) => value,
    parseLiteral: (node, variables) => valueFromASTUntyped(node, variables),
  }),
);
