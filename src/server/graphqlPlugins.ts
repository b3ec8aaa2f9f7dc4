/** The steps that this server adds to Yoga's pipeline. They run for HTTP, SSE and WebSocket alike. */
import { type ExecutionArgs, type ExecutionResult, GraphQLError, parse, type Source } from 'graphql';
import { isAsyncIterable, type Plugin } from 'graphql-yoga';
import type { GraphQLContext } from '../schema/context.js';
import type { ErrorShaper } from './graphqlErrors.js';
import { checkDocument, type DocumentLimits } from './graphqlLimits.js';

type YogaPlugin = Plugin<Record<string, unknown>>;

/** Own properties that the context always has by the time anything executes. */
function correlationOf(context: unknown): string | null {
  const { correlationId } = (context ?? {}) as Partial<GraphQLContext>;
  return correlationId ?? null;
}

/** Refuses documents that are too large, before validation looks at them. */
export function useDocumentLimits(limits: DocumentLimits): YogaPlugin {
  const checked = new WeakSet<object>();
  return {
    onParse({ setParseFn }) {
      setParseFn((source: string | Source, options) => parse(source, { ...options, maxTokens: limits.maxTokens }));
      return ({ result, replaceParseResult }) => {
        if (result === null || result instanceof Error || checked.has(result)) return;
        const tooLarge = checkDocument(result, limits);
        if (tooLarge === null) checked.add(result);
        else replaceParseResult(tooLarge);
      };
    },
  };
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

/** A form or a text body is what a foreign page can send without asking first; only JSON is taken. */
export function useJsonOnly(): YogaPlugin {
  return {
    onRequestParse({ request, endResponse, fetchAPI }) {
      if (request.method !== 'POST') return;
      const type = (request.headers.get('content-type') ?? '').split(';', 1)[0]?.trim().toLowerCase();
      if (type === 'application/json') return;
      const error = { message: 'Send the operation as application/json.', extensions: { code: 'INVALID_PARAMS' } };
      endResponse(
        new fetchAPI.Response(JSON.stringify({ errors: [error] }), {
          status: 415,
          headers: { 'content-type': 'application/json; charset=utf-8', accept: 'application/json' },
        }),
      );
    },
  };
}
