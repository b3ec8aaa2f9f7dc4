/** JSON against the schemas of the contract. Numbers of the wire are `number`, or `bigint` where only that keeps the digits. */
import { Ajv, type ErrorObject, type SchemaValidateFunction } from 'ajv';
import addFormats from 'ajv-formats';
import { isUuid } from '../core/ids.js';
import type { Schema } from './openapi.js';

/** What is wrong first: the path of the member, e.g. `placement.mode`; empty for the whole value. */
export interface Problem {
  readonly field: string;
  readonly message: string;
}

export type Check = (value: unknown) => Problem | null;

/**
 * `request`: an optional member may be null, which is the same as leaving it out, and unknown members are ignored.
 * `response`: only what the schema names may be there, so that nothing is sent that the contract does not tell of.
 */
export type Direction = 'request' | 'response';

interface IntegerRule {
  readonly least: number | bigint;
  readonly most: number | bigint;
  readonly nullable: boolean;
}

const INT32_MAX = 2 ** 31 - 1;
const INT64_MAX = (1n << 63n) - 1n;

/** ajv knows no bigint, so integers are ours: one keyword with type, format and bounds in it. */
const checkInteger: SchemaValidateFunction = (rule: IntegerRule, value: unknown) => {
  if (value === null && rule.nullable) return true;
  const whole = typeof value === 'bigint' || (typeof value === 'number' && Number.isSafeInteger(value));
  if (whole && value >= rule.least && value <= rule.most) return true;
  checkInteger.errors = [{ keyword: 'wholeNumber', params: rule, message: boundsOf(rule) }];
  return false;
};

function boundsOf({ least, most }: IntegerRule): string {
  if (least === -INT64_MAX - 1n) return 'must be a whole number of 64 bits';
  if (least === -INT32_MAX - 1) return 'must be a whole number of 32 bits';
  return most === INT64_MAX || most === INT32_MAX
    ? `must be a whole number of at least ${least}`
    : `must be a whole number from ${least} to ${most}`;
}

const ajv = new Ajv({ strict: true, strictTypes: false, strictRequired: false, ownProperties: true });
addFormats.default(ajv, ['date-time']);
ajv.addFormat('uuid', isUuid);
ajv.addFormat('float', true);
ajv.addVocabulary(['example', 'x-events']);
ajv.addKeyword({ keyword: 'wholeNumber', validate: checkInteger, errors: true });

/** @throws Error when the schema is none. */
export function compile(schema: Schema, direction: Direction): Check {
  const validate = ajv.compile(forAjv(schema, direction));
  return (value) => {
    if (validate(value)) return null;
    const [error] = validate.errors ?? [];
    return error === undefined ? { field: '', message: 'is not valid' } : problemOf(error);
  };
}

function forAjv(schema: Schema, direction: Direction): Record<string, unknown> {
  if (schema.type === 'integer') return { wholeNumber: ruleOf(schema) };
  const each = (schemas: readonly Schema[]) => schemas.map((part) => forAjv(part, direction));
  const { items, properties, additionalProperties, oneOf, allOf, ...rest } = schema;
  return {
    ...rest,
    ...(items !== undefined && { items: forAjv(items, direction) }),
    ...(oneOf !== undefined && { oneOf: each(oneOf) }),
    ...(allOf !== undefined && { allOf: each(allOf) }),
    ...(properties !== undefined && membersOf(schema, properties, direction)),
    ...(typeof additionalProperties === 'object' && {
      additionalProperties: forAjv(additionalProperties, direction),
    }),
    ...(typeof additionalProperties === 'boolean' && { additionalProperties }),
  };
}

function membersOf(schema: Schema, properties: Readonly<Record<string, Schema>>, direction: Direction) {
  const members = Object.entries(properties).map(([name, member]) => {
    const mayBeNull = direction === 'request' && schema.required?.includes(name) !== true;
    return [name, forAjv(mayBeNull ? nullable(member) : member, direction)];
  });
  return {
    properties: Object.fromEntries(members),
    ...(direction === 'response' && schema.additionalProperties === undefined && { additionalProperties: false }),
  };
}

function nullable(schema: Schema): Schema {
  if (schema.type === undefined) return schema;
  return { ...schema, nullable: true, ...(schema.enum !== undefined && { enum: [...schema.enum, null] }) };
}

function ruleOf({ format, minimum, maximum, nullable: mayBeNull }: Schema): IntegerRule {
  const [least, most] = format === 'int32' ? [-INT32_MAX - 1, INT32_MAX] : [-INT64_MAX - 1n, INT64_MAX];
  return { least: minimum ?? least, most: maximum ?? most, nullable: mayBeNull === true };
}

function problemOf(error: ErrorObject): Problem {
  const parent = error.instancePath.split('/').slice(1).map(unescaped);
  const { missingProperty, additionalProperty } = error.params as Record<string, string | undefined>;
  const member = missingProperty ?? additionalProperty;
  return { field: [...parent, ...(member === undefined ? [] : [member])].join('.'), message: messageOf(error) };
}

function unescaped(part: string): string {
  return part.replaceAll('~1', '/').replaceAll('~0', '~');
}

function messageOf({ keyword, params, message }: ErrorObject): string {
  switch (keyword) {
    case 'required':
      return 'is missing';
    case 'additionalProperties':
      return 'is not part of the contract';
    case 'type':
      return `must be of type ${[params.type].flat().filter((type) => type !== 'null')}`;
    case 'enum':
      return `must be one of ${params.allowedValues.filter((value: unknown) => value !== null).join(', ')}`;
    case 'format':
      return params.format === 'uuid' ? 'must be a uuid (8-4-4-4-12 hex digits)' : `must be a ${params.format}`;
    case 'pattern':
      return params.pattern === NO_NUL ? 'must not contain the NUL character' : (message ?? 'is not valid');
    default:
      return message ?? 'is not valid';
  }
}

/** As the files write it. */
const NO_NUL = '^[^\\u0000]*$';
