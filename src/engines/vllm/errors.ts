/** What each way a vLLM server can fail means to us: by its error type and by status, in an answer or in a frame. */
import { type EngineSaid, type ErrorTable, VERDICTS } from '../failure.js';
import { isRecord } from '../frames.js';

export const VLLM_ERRORS: ErrorTable = {
  program: 'vLLM',
  read: readEnvelope,
  byMessage: [
    // The API server outlives its engine for some seconds and says so under the type of any other failure. Only at the
    // beginning: further on a message may quote what the caller sent.
    { pattern: /^(?:[\w.]*EngineDeadError\b|EngineCore\b)/, verdict: VERDICTS.lost },
    // Its wording around this changes from release to release, and so does its type.
    { pattern: /maximum context length is/, verdict: VERDICTS.badRequest },
  ],
  byType: {
    BadRequestError: VERDICTS.badRequest,
    /** What FastAPI refuses before vLLM sees it. */
    'Bad Request': VERDICTS.badRequest,
    UnprocessableEntityError: VERDICTS.badRequest,
    NotFoundError: VERDICTS.ours,
    NotImplementedError: VERDICTS.ours,
    InternalServerError: VERDICTS.failed,
    // Finish reasons that are no end. An abort that nobody here asked for comes from an engine that is going down.
    abort: VERDICTS.lost,
    error: VERDICTS.failed,
  },
  // Where the answer carries no envelope or a type of no use: the key's 401, an unknown route, a proxy in between.
  byStatus: {
    400: VERDICTS.badRequest,
    401: VERDICTS.ours,
    413: VERDICTS.badRequest,
    422: VERDICTS.badRequest,
    429: VERDICTS.overloaded,
    500: VERDICTS.failed,
    502: VERDICTS.lost,
    // The queue limits of --max-num-queued-reqs and --max-num-queued-tokens: refused before it reached the engine.
    503: VERDICTS.overloaded,
    504: VERDICTS.hung,
  },
};

/**
 * `{"error":{"message":"…","type":"BadRequestError","param":null,"code":400}}`; a wrong key is `{"error":"Unauthorized"}`,
 * and older builds send the inner object flat, with `"object":"error"`.
 */
function readEnvelope(value: unknown): EngineSaid | null {
  if (!isRecord(value)) return null;
  const error = value.object === 'error' ? value : value.error;
  if (typeof error === 'string') return { status: 500, type: null, message: error };
  if (!isRecord(error)) return null;
  return {
    status: typeof error.code === 'number' ? error.code : 500,
    type: typeof error.type === 'string' ? error.type : null,
    message: typeof error.message === 'string' ? error.message : 'no message',
  };
}
