/** What each way a llama-server can fail means to us: by its error type and by status, in an answer or in a frame. */
import { type EngineSaid, type ErrorTable, VERDICTS } from '../failure.js';
import { isRecord } from '../frames.js';

export const LLAMACPP_ERRORS: ErrorTable = {
  program: 'llama-server',
  read: readEnvelope,
  byMessage: [
    // A text to be embedded has to fit one physical batch (-ub); it is no failure of the engine, whatever the type says.
    { pattern: /^input \(\d+ tokens\) is too large to process/, verdict: VERDICTS.badRequest },
  ],
  byType: {
    invalid_request_error: VERDICTS.badRequest,
    exceed_context_size_error: VERDICTS.badRequest,
    authentication_error: VERDICTS.ours,
    permission_error: VERDICTS.ours,
    not_found_error: VERDICTS.ours,
    not_supported_error: VERDICTS.ours,
    // Decoding failed (KV cache full, compute error) for every active slot; the process stays and may serve the next.
    server_error: VERDICTS.failed,
    unavailable_error: VERDICTS.loading,
  },
  // Where the answer carries no envelope: a proxy in between, an older build.
  byStatus: {
    400: VERDICTS.badRequest,
    413: VERDICTS.badRequest,
    429: VERDICTS.overloaded,
    500: VERDICTS.failed,
    502: VERDICTS.lost,
    503: VERDICTS.loading,
    504: VERDICTS.hung,
  },
};

/** `{"error":{"code":400,"message":"…","type":"…"}}`; older builds and proxies send a bare string. */
function readEnvelope(value: unknown): EngineSaid | null {
  if (!isRecord(value) || !('error' in value)) return null;
  const { error } = value;
  if (typeof error === 'string') return { status: 500, type: null, message: error };
  if (!isRecord(error)) return null;
  return {
    status: typeof error.code === 'number' ? error.code : 500,
    type: typeof error.type === 'string' ? error.type : null,
    message: typeof error.message === 'string' ? error.message : 'no message',
  };
}
