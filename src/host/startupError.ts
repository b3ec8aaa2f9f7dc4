/**
 * A start-up failure an operator can act on. `message` says what is wrong, `fix` what to do about it; both are shown
 * as they are, so neither carries secrets or stack traces.
 */
export class StartupError extends Error {
  readonly fix: string;
  constructor(message: string, fix: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'StartupError';
    this.fix = fix;
  }
}

/** The `code` of a Node system error (`ENOENT`, …), or undefined for anything else. */
export function errnoOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
