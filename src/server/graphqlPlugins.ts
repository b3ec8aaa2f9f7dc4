/** The steps that this server adds to Yoga's pipeline. They run for HTTP, SSE and WebSocket alike. */
import {
  type DocumentNode,
  type ExecutionArgs,
  type ExecutionResult,
  GraphQLError,
  type ParseOptions,
  parse,
  type Source,
} from 'graphql';
import { type GraphQLParams, isAsyncIterable, type Plugin } from 'graphql-yoga';
import { JsonError, parseJson, REQUEST_LIMITS } from '../core/boundedJson.js';
import type { GraphQLContext } from '../schema/context.js';
import type { ErrorShaper } from './graphqlErrors.js';
import { checkDocument, type DocumentLimits } from './graphqlLimits.js';

type YogaPlugin = Plugin<Record<string, unknown>>;

/** Own properties that the context always has by the time anything executes. */
function correlationOf(context: unknown): string | null {
  const { correlationId } = (context ?? {}) as Partial<GraphQLContext>;
  return correlationId ?? null;
}

/** Refuses documents that are too large, before validation looks at them; one that is kept parsed has passed. */
export function useDocumentLimits(limits: DocumentLimits): YogaPlugin {
  return {
    onParse({ setParseFn }) {
      setParseFn((source: string | Source, options) => {
        const document = parseWithinStack(source, { ...options, ...limits });
        const tooLarge = checkDocument(document, limits);
        if (tooLarge !== null) throw tooLarge;
        return document;
      });
    },
  };
}

/** The parser follows a document by recursion: one that is nested too deeply for that is its sender's error. */
function parseWithinStack(source: string | Source, options: ParseOptions): DocumentNode {
  try {
    return parse(source, options);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new GraphQLError('The document is nested too deeply.', { extensions: { code: 'INVALID_PARAMS' } });
  }
}

/** A query or mutation answers in time, or its caller is told so; what it started may still go on. */
export function useOperationTimeout(timeoutMs: number): YogaPlugin {
  return {
    onExecute({ executeFn, setExecuteFn }) {
      setExecuteFn(async (args: ExecutionArgs) => {
        let timer: NodeJS.Timeout | undefined;
        const late = new Promise<ExecutionResult>((resolve) => {
          const error = new GraphQLError(`The operation took longer than ${timeoutMs} ms.`, {
            extensions: { code: 'DEADLINE_UNMET', retriable: true },
          });
          timer = setTimeout(() => resolve({ errors: [error] }), timeoutMs);
        });
        try {
          return await Promise.race([executeFn(args), late]);
        } finally {
          clearTimeout(timer);
        }
      });
    },
  };
}

/** Every error that leaves carries a code of the closed set; what is not the caller's business is masked. */
export function useErrorShaping(shaper: ErrorShaper): YogaPlugin {
  function shapeResult(result: ExecutionResult, correlationId: string | null): ExecutionResult {
    if (result.errors === undefined || result.errors.length === 0) return result;
    return { ...result, errors: shaper.shapeAll(result.errors, correlationId) };
  }
  return {
    onExecute({ args }) {
      const correlationId = correlationOf(args.contextValue);
      return {
        onExecuteDone({ result, setResult }) {
          if (!isAsyncIterable(result)) setResult(shapeResult(result, correlationId));
        },
      };
    },
    onSubscribe({ args }) {
      const correlationId = correlationOf(args.contextValue);
      return {
        onSubscribeError: ({ error, setError }) => setError(shaper.shape(error, correlationId)),
        onSubscribeResult({ result, setResult }) {
          if (!isAsyncIterable(result)) setResult(shapeResult(result, correlationId));
          return {
            onNext: ({ result: event, setResult: setEvent }) => setEvent(shapeResult(event, correlationId)),
          };
        },
      };
    },
    onResultProcess({ result, setResult }) {
      if (Array.isArray(result) || isAsyncIterable(result) || result.errors === undefined) return;
      const status = statusOf(result);
      const errors = shaper.shapeAll(result.errors, null);
      // No data at all: the request itself was refused, and clients that know the media type get that as a status.
      setResult({
        ...result,
        errors: result.data === undefined ? errors.map((error) => withStatus(error, status)) : errors,
      });
    },
  };
}

interface HttpStatus {
  readonly status: number;
  readonly spec: boolean;
}

/** The status that Yoga chose for a refused request, or the one the specification asks for. */
function statusOf(result: ExecutionResult): HttpStatus {
  for (const error of result.errors ?? []) {
    const http = error.extensions.http as Partial<HttpStatus> | undefined;
    if (http?.status !== undefined) return { status: http.status, spec: http.spec ?? false };
    if (error.extensions.code === 'INTERNAL') return { status: 500, spec: true };
    if (error.extensions.code === 'POOL_UNAVAILABLE' || error.extensions.code === 'DEADLINE_UNMET') {
      return { status: 503, spec: true };
    }
  }
  return { status: 400, spec: true };
}

function withStatus(error: GraphQLError, http: HttpStatus): GraphQLError {
  error.extensions.http ??= http;
  return error;
}

const JSON_TYPE = 'application/json';

/**
 * A form or a text body is what a foreign page can send without asking first; only JSON is taken, and that within the
 * bounds that hold at the other doors too.
 */
export function useJsonOnly(): YogaPlugin {
  return {
    onRequestParse({ request, setRequestParser, endResponse, fetchAPI }) {
      if (request.method !== 'POST') return;
      const type = (request.headers.get('content-type') ?? '').split(';', 1)[0]?.trim().toLowerCase();
      if (type === JSON_TYPE) return setRequestParser(readOperation);
      const error = { message: 'Send the operation as application/json.', extensions: { code: 'INVALID_PARAMS' } };
      endResponse(
        new fetchAPI.Response(JSON.stringify({ errors: [error] }), {
          status: 415,
          headers: { 'content-type': 'application/json; charset=utf-8', accept: JSON_TYPE },
        }),
      );
    },
  };
}

/** Yoga has bounded the size of the body, and looks at what the operation is made of. */
async function readOperation(request: Request): Promise<GraphQLParams | GraphQLParams[]> {
  const body = readBounded(await request.text());
  if (typeof body !== 'object' || body === null) throw badBody('is not an object');
  return body;
}

function readBounded(text: string): unknown {
  try {
    return parseJson(text, REQUEST_LIMITS);
  } catch (error) {
    throw error instanceof JsonError ? badBody(error.message) : error;
  }
}

function badBody(problem: string): GraphQLError {
  return new GraphQLError(`The body ${problem}.`, { extensions: { code: 'INVALID_PARAMS', http: { status: 400 } } });
}
