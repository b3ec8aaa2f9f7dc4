/** What each way a TGI server can fail means to us: by its error type and by status, in an answer or in a frame. */
import { type EngineSaid, type ErrorTable, VERDICTS } from '../failure.js';
import { isRecord } from '../frames.js';

export const TGI_ERRORS: ErrorTable = {
  program: 'TGI',
  read: readEnvelope,
  byMessage: [
    {
      // A shard ends itself after whatever torch cannot recover from, and the launcher ends everything after it. The
      // first request hears the cause, the next ones only that nobody answers on the shard's socket.
      pattern:
        /^Request failed during generation: .*(?:\b(?:CUDA|HIP|NCCL|CUBLAS_\w+)\b|out of memory|transport error|Could not connect|tcp connect error)/s,
      verdict: VERDICTS.lost,
    },
  ],
  byType: {
    validation: VERDICTS.badRequest,
    template_error: VERDICTS.badRequest,
    missing_template_variable: VERDICTS.badRequest,
    tool_error: VERDICTS.badRequest,
    /** More than --max-concurrent-requests; told at once, never queued. */
    overloaded: VERDICTS.overloaded,
    generation: VERDICTS.failed,
    incomplete_generation: VERDICTS.failed,
    incomplete_generation_stream: VERDICTS.failed,
    stream_serialization_error: VERDICTS.failed,
    /** Only from the health routes: the shards cannot allocate on their device, or failed to generate one token. */
    healthcheck: VERDICTS.lost,
  },
  // Bodies that could not be read are refused in plain text, a wrong key without any text; the rest is a proxy's.
  byStatus: {
    400: VERDICTS.badRequest,
    401: VERDICTS.ours,
    413: VERDICTS.badRequest,
    415: VERDICTS.badRequest,
    422: VERDICTS.badRequest,
    424: VERDICTS.failed,
    429: VERDICTS.overloaded,
    500: VERDICTS.failed,
    502: VERDICTS.lost,
    503: VERDICTS.loading,
    504: VERDICTS.hung,
  },
};

/** The status that a failure has where it is an answer of its own; a stream has said 200 before it knows. */
const STATUS_BY_TYPE: ReadonlyMap<string, number> = new Map([
  ['validation', 422],
  ['template_error', 422],
  ['missing_template_variable', 422],
  ['tool_error', 422],
  ['generation', 424],
  ['overloaded', 429],
  ['healthcheck', 503],
]);

/** `{"error":"Model is overloaded","error_type":"overloaded"}`. */
function readEnvelope(value: unknown): EngineSaid | null {
  if (!isRecord(value) || typeof value.error !== 'string') return null;
  const type = typeof value.error_type === 'string' ? value.error_type : null;
  return { status: STATUS_BY_TYPE.get(type ?? '') ?? 500, type, message: value.error };
}
