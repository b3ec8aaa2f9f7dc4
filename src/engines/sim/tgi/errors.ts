/** Refusals of the TGI router: its own as JSON envelopes, those of its web framework (axum) as plain text. */

export interface Envelope {
  readonly error: string;
  readonly error_type: string;
}

/** Answers with its status, or in a stream, where status 200 is out already, as the only event. */
export class TgiError extends Error {
  readonly status: number;
  readonly envelope: Envelope;
  constructor(status: number, type: string, message: string) {
    super(message);
    this.status = status;
    this.envelope = { error: message, error_type: type };
  }
}

export const invalid = (message: string): TgiError =>
  new TgiError(422, 'validation', `Input validation error: ${message}`);

/** Told at once: what is over the limit does not queue. */
export const overloaded = (): TgiError => new TgiError(429, 'overloaded', 'Model is overloaded');

/** @param cause what the shard said. */
export const generationFailed = (cause: string): TgiError =>
  new TgiError(424, 'generation', `Request failed during generation: Server error: ${cause}`);

/** A body that axum could not make a request of; comes before anything of TGI, so also on streams with this status. */
export class Rejection extends Error {
  readonly status: 400 | 413 | 415 | 422;
  constructor(status: Rejection['status'], message: string) {
    super(message);
    this.status = status;
  }
}
