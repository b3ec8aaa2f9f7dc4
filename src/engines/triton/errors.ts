/** What each way a Triton server can fail means to us: by its message and by status, in an answer or in a frame. */
import { type EngineSaid, type ErrorTable, VERDICTS } from '../failure.js';
import { isRecord } from '../frames.js';

export const TRITON_ERRORS: ErrorTable = {
  program: 'Triton',
  read: readEnvelope,
  // There is no word for the kind of a failure: whatever a backend throws is a 500, or a 200 in mid-stream. None of
  // these is bound to the start of the text: an ensemble puts its name before it, and a first frame that is an error
  // is the body of an answer with its status, `data: ` included.
  byMessage: [
    {
      // Of the batch manager, the executor and the llmapi model, in this order.
      pattern:
        /(?:exceeds?|equal to) (?:the )?(?:maximum (?:encoder )?(?:input|sequence) length|max_(?:input_len|seq_len|sequence_len|num_tokens))/i,
      verdict: VERDICTS.badRequest,
    },
    { pattern: /Server exiting/, verdict: VERDICTS.lost },
    { pattern: /Exceeds maximum queue size/i, verdict: VERDICTS.overloaded },
    // 404, in older releases 400.
    { pattern: /unknown model: .* is not found/, verdict: VERDICTS.ours },
    // Only the batch that asked for the memory fails.
    { pattern: /out of memory/i, verdict: VERDICTS.failed },
    {
      // The CUDA context is lost for the whole process, even where that stays and answers.
      pattern: /CUDA (?:runtime |driver )?error|\bcudaError|illegal memory access|NCCL error|Signal \(\d+\)/,
      verdict: VERDICTS.lost,
    },
  ],
  byType: {},
  byStatus: {
    // Bad arguments, and requests that were cancelled.
    400: VERDICTS.badRequest,
    403: VERDICTS.ours,
    404: VERDICTS.ours,
    405: VERDICTS.ours,
    413: VERDICTS.badRequest,
    429: VERDICTS.overloaded,
    500: VERDICTS.failed,
    501: VERDICTS.ours,
    502: VERDICTS.lost,
    503: VERDICTS.overloaded,
    504: VERDICTS.hung,
  },
};

/** `{"error":"in ensemble 'ensemble', …"}`. */
function readEnvelope(value: unknown): EngineSaid | null {
  if (!isRecord(value) || typeof value.error !== 'string') return null;
  return { status: 500, type: null, message: value.error };
}
