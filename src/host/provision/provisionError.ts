/** A preparation that failed, with the reason an operator is shown. */
import type { Reason } from '../../core/pool.js';

export class ProvisionError extends Error {
  readonly reason: Reason;
  constructor(code: string, message: string, fix: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'ProvisionError';
    this.reason = { code, message, fix };
  }
}

export function checksumMismatch(what: string, wanted: string, found: string): ProvisionError {
  return new ProvisionError(
    'CHECKSUM_MISMATCH',
    `${what} has sha256 ${found}, the configuration names ${wanted}`,
    'Correct the checksum if the file is the one you mean; else replace the file, which is damaged or another one.',
  );
}
