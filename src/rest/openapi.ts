/** The contract as data: contracts/openapi/*.yaml, with every reference replaced by what it names. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';

/** A schema object of OpenAPI 3.0; what is not named here is for the validator. */
export interface Schema {
  readonly type?: 'object' | 'array' | 'string' | 'integer' | 'number' | 'boolean';
  readonly format?: string;
  readonly nullable?: boolean;
  readonly enum?: readonly unknown[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly pattern?: string;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly items?: Schema;
  readonly required?: readonly string[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: boolean | Schema;
  readonly oneOf?: readonly Schema[];
  readonly allOf?: readonly Schema[];
}

interface Examples {
  readonly example?: unknown;
  readonly examples?: Readonly<Record<string, { readonly value: unknown }>>;
}

export interface Parameter extends Examples {
  readonly name: string;
  readonly in: 'path' | 'query' | 'header';
  readonly required?: boolean;
  readonly schema: Schema;
}

export interface MediaType extends Examples {
  readonly schema: Schema;
  /** The schema of an event's data, by the name of the event. */
  readonly 'x-events'?: Readonly<Record<string, Schema>>;
}

export interface ResponseSpec {
  readonly headers?: Readonly<Record<string, Examples & { readonly required?: boolean; readonly schema: Schema }>>;
  readonly content?: Readonly<Record<string, MediaType>>;
}

export interface Operation {
  readonly operationId: string;
  /** In capitals. */
  readonly method: string;
  /** With `{name}` for what varies, as in the routes. */
  readonly path: string;
  readonly parameters?: readonly Parameter[];
  readonly requestBody?: { readonly required?: boolean; readonly content: Readonly<Record<string, MediaType>> };
  /** By status. */
  readonly responses: Readonly<Record<string, ResponseSpec>>;
}

const PLANES = ['data', 'control'] as const;
/** No schema of ours is so deep; one that contained itself would be. */
const MAX_DEPTH = 64;

/** Of both planes. @param dir contracts/openapi @throws Error when a file is missing or refers to what is not there. */
export function readOperations(dir: string): Operation[] {
  return PLANES.flatMap((plane) => {
    const file = join(dir, `${plane}.yaml`);
    const document: unknown = parse(readFileSync(file, 'utf8'));
    try {
      return operationsOf(resolved(document, document, 0));
    } catch (error) {
      throw new Error(`${file} cannot be used: ${error instanceof Error ? error.message : error}`, { cause: error });
    }
  });
}

function operationsOf(document: unknown): Operation[] {
  const { paths } = document as { paths: Record<string, Record<string, Operation>> };
  return Object.entries(paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]) => ({ ...operation, method: method.toUpperCase(), path })),
  );
}

function resolved(node: unknown, document: unknown, depth: number): unknown {
  if (depth > MAX_DEPTH) throw new Error('a reference leads back to itself');
  if (Array.isArray(node)) return node.map((part) => resolved(part, document, depth + 1));
  if (typeof node !== 'object' || node === null) return node;
  if ('$ref' in node) return resolved(target(String(node.$ref), document), document, depth + 1);
  return Object.fromEntries(Object.entries(node).map(([key, part]) => [key, resolved(part, document, depth + 1)]));
}

function target(reference: string, document: unknown): unknown {
  const found = reference
    .replace(/^#\//, '')
    .split('/')
    .reduce<unknown>(
      (node, key) => (typeof node === 'object' && node !== null ? (node as Record<string, unknown>)[key] : undefined),
      document,
    );
  if (found === undefined) throw new Error(`${reference} does not exist`);
  return found;
}
