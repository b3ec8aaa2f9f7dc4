/**
 * What a caller sees of an error that is not data: always a code of the closed set. A refusal keeps its fields, a
 * mistake in the request keeps its message, anything else is masked and only its correlation id goes out.
 */
import { GraphQLError } from 'graphql';
import { ERROR_CODES, type Refusal, RefusalError } from '../core/errors.js';

export type OnInternalError = (error: unknown, correlationId: string | null) => void;

const KNOWN_CODES: ReadonlySet<unknown> = new Set(ERROR_CODES);
/** Prisma's codes for a database that is away or too busy, and for values that no column could hold. */
const PRISMA_AWAY = /^P(1000|1001|1002|1003|1008|1011|1017|2024|2037)$/;
const PRISMA_BAD_VALUE = /^P(2007|2020|2023|2033)$/;
/** PostgreSQL's "not a value of this type", e.g. a NUL in a text; bare from our own SQL, quoted by Prisma (P2039). */
const POSTGRES_BAD_VALUE = /^22(003|007|021|P02|P05)$/;
const QUOTED_STATE = /Code: `([0-9A-Z]{5})`/;
/** What the executor says about an argument that did not fit its type; it has a path, but the caller is to blame. */
const ARGUMENT_MESSAGE = /^Argument "/;

interface Parts {
  readonly message: string;
  readonly extensions: Readonly<Record<string, unknown>>;
}

function ofRefusal(refusal: Refusal): Parts {
  const { message, ...rest } = refusal;
  return { message, extensions: rest };
}

/** The innermost error: resolvers' errors arrive wrapped once or more in located ones. */
function causeOf(error: unknown): unknown {
  let cause = error;
  while (cause instanceof GraphQLError && cause.originalError != null) cause = cause.originalError;
  return cause;
}

function isBadValue(cause: Error, code: string): boolean {
  if (PRISMA_BAD_VALUE.test(code) || POSTGRES_BAD_VALUE.test(code)) return true;
  if (code === 'P2039') return POSTGRES_BAD_VALUE.test(QUOTED_STATE.exec(cause.message)?.[1] ?? '');
  // A cursor of another list decodes to a value of another type.
  return cause.name === 'PrismaClientValidationError' && /Argument `(id|seq)`: Invalid value/.test(cause.message);
}

function ofDatabase(cause: unknown): Parts | null {
  if (!(cause instanceof Error)) return null;
  const code = 'code' in cause && typeof cause.code === 'string' ? cause.code : '';
  if (PRISMA_AWAY.test(code) || cause.name === 'PrismaClientInitializationError') {
    const extensions = { code: 'POOL_UNAVAILABLE', family: 'unavailable', retriable: true, retryAfterMs: 2000 };
    return { message: 'the database does not answer', extensions };
  }
  if (!isBadValue(cause, code)) return null;
  return { message: 'an id, a name or a cursor is not of the right form', extensions: { code: 'INVALID_PARAMS' } };
}

/** Only the outer error of a variable that could not be read tells which member was wrong. */
const VARIABLE_MESSAGE = /^Variable "\$[^"]+" got invalid value .* at "[^".]+\.([^"]+)"; /s;
const VARIABLE_MEMBER = /^Variable "\$[^"]+" got invalid value .*; Field "([^"]+)" /s;

/** The path of the first input that a validation rule refused. */
function refusedField(cause: GraphQLError, outerMessage: string): string | null {
  const variable = VARIABLE_MESSAGE.exec(outerMessage) ?? VARIABLE_MEMBER.exec(outerMessage);
  if (variable !== null) return variable[1] ?? null;
  if (!('issues' in cause) || !Array.isArray(cause.issues)) return null;
  const path: unknown = cause.issues[0]?.path;
  return Array.isArray(path) ? path.map((part) => String(part?.key ?? part)).join('.') : null;
}

/** What graphql-js says before it quotes a value, of a variable or of the document; it may be a whole prompt. */
const BEFORE_VALUE = /^(.*? cannot represent [^:]*): |^(Expected value of type "[^"]*"), found /s;
/** A member of an enumeration is short. */
const LONG_MEMBER = /^Value "[^"]{40,}"/;

/** What is wrong and where is enough. */
function withoutValue(cause: string, outer: string): string {
  const where = VARIABLE_MESSAGE.exec(outer)?.[1];
  const [, represent, expected] = BEFORE_VALUE.exec(cause) ?? [];
  const said = represent ?? expected;
  const what = said === undefined ? cause.replace(LONG_MEMBER, 'The value') : `${said}.`;
  return where === undefined ? what : `${where}: ${what}`;
}

function ofRequest(cause: GraphQLError, outer: GraphQLError): Parts | null {
  const { unexpected: _unexpected, ...extensions } = cause.extensions;
  const field = refusedField(cause, outer.message);
  const named = field === null ? {} : { field };
  const message = withoutValue(cause.message, outer.message);
  if (KNOWN_CODES.has(extensions.code)) return { message, extensions: { ...extensions, ...named } };
  const located = outer.path !== undefined;
  if (located && cause.name !== 'PothosValidationError' && !ARGUMENT_MESSAGE.test(cause.message)) return null;
  // Yoga's word on the status stays with the error; it takes `http` out before it answers.
  const http = extensions.http === undefined ? {} : { http: extensions.http };
  return { message, extensions: { code: 'INVALID_PARAMS', ...named, ...http } };
}

function partsOf(error: unknown, cause: unknown): Parts | null {
  if (cause instanceof RefusalError) return ofRefusal(cause.refusal);
  if (cause instanceof GraphQLError) return ofRequest(cause, error instanceof GraphQLError ? error : cause);
  return ofDatabase(cause);
}

export class ErrorShaper {
  readonly #onInternal: OnInternalError;
  readonly #shaped = new WeakSet<GraphQLError>();

  constructor(onInternal: OnInternalError) {
    this.#onInternal = onInternal;
  }

  /** Idempotent: what it made, it leaves as it is. */
  shape(error: unknown, correlationId: string | null): GraphQLError {
    if (error instanceof GraphQLError && this.#shaped.has(error)) return error;
    const cause = causeOf(error);
    let parts = partsOf(error, cause);
    if (parts === null) {
      this.#onInternal(cause, correlationId);
      parts = { message: 'Unexpected error.', extensions: { code: 'INTERNAL' } };
    }
    const where = error instanceof GraphQLError ? error : null;
    const shaped = new GraphQLError(parts.message, {
      nodes: where?.nodes ?? null,
      source: where?.source ?? null,
      positions: where?.positions ?? null,
      path: where?.path ?? null,
      extensions: { ...parts.extensions, ...(correlationId === null ? {} : { correlationId }) },
    });
    this.#shaped.add(shaped);
    return shaped;
  }

  /** The same for a transport that has no status to choose. */
  shapeForSocket(errors: readonly unknown[]): GraphQLError[] {
    const shaped = this.shapeAll(errors, null);
    for (const error of shaped) delete error.extensions.http;
    return shaped;
  }

  shapeAll(errors: readonly unknown[], correlationId: string | null): GraphQLError[] {
    return errors.map((error) => this.shape(error, correlationId));
  }
}
