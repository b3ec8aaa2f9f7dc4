/** JSON Lines logs. Secrets are redacted by key; outside text is never interpolated into a message. */
import { type DestinationStream, type Logger, pino } from 'pino';
import { withoutSecrets } from './secrets.js';

export type { Logger };

/** Lines are flat by convention, so top-level keys are enough; a wildcard would copy every line to look inside it. */
const REDACT_PATHS = [
  'authorization',
  'cookie',
  'token',
  'apiKey',
  'password',
  'databaseUrl',
  'prompt',
  'connectionString',
];

/** Credentials inside a URL, wherever an error message or a model reference may carry one. */
const URL_CREDENTIALS = /(\b[a-z][a-z0-9+.-]{0,31}:\/\/)[^\s/@"]+@/gi;
const URL_QUERY = /([?&](?:[\w-]*(?:token|key|secret|password|signature|sig))=)[^\s&"]+/gi;

export function redactText(text: string): string {
  return withoutSecrets(text.replace(URL_CREDENTIALS, '$1[redacted]@').replace(URL_QUERY, '$1[redacted]'));
}

function serializeError(error: unknown): object {
  if (!(error instanceof Error)) return { message: redactText(String(error)) };
  const cause = error.cause === undefined ? {} : { cause: serializeError(error.cause) };
  const code = 'code' in error && typeof error.code === 'string' ? { code: error.code } : {};
  return {
    type: error.name,
    message: redactText(error.message),
    stack: redactText(error.stack ?? ''),
    ...code,
    ...cause,
  };
}

export function createLogger(destination: DestinationStream, level = 'info'): Logger {
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: REDACT_PATHS, censor: '[redacted]' },
      serializers: { err: serializeError },
    },
    // Whatever field it is in.
    { write: (line: string) => destination.write(redactText(line)) },
  );
}
