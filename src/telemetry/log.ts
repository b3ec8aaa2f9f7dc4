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

/** A line without secrets that is JSON still, also where one was found in a number. */
function redactLine(line: string): string {
  const clean = redactText(line);
  if (clean === line || isJson(clean) || !isJson(line)) return clean;
  return `${JSON.stringify(JSON.parse(line), (_key, value: unknown) => redactValue(value))}\n`;
}

function redactValue(value: unknown): unknown {
  if (typeof value === 'string') return redactText(value);
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return Object.fromEntries(Object.entries(value).map(([key, member]) => [redactText(key), member]));
  }
  if (typeof value !== 'number') return value;
  return redactText(String(value)) === String(value) ? value : '[redacted]';
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
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
    { write: (line: string) => destination.write(redactLine(line)) },
  );
}
