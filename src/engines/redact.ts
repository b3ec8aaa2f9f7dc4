/** Keeps secrets and terminal escapes out of what an engine made us say. */
import { withoutSecrets } from '../telemetry/secrets.js';

const SECRET_SHAPES: readonly RegExp[] = [
  /\bBearer\s+[\w.~+/=-]+/gi,
  /\b(?:hf|sk|ghp|glpat|nvapi)[_-][A-Za-z0-9_-]{8,}/g,
  /(?<=:\/\/)[^\s/@]+@/g,
  /(?<=--?(?:[\w-]*-)?(?:api-key|hf-token|auth-token|password|secret)s?["',]{0,2}\s{1,8}["']?)[^\s"',;&-][^\s"',;&]{3,}/gi,
  /(?<=\b(?:api[_-]?key|token|password|authorization)["']?\s{0,8}[=:]\s{0,8}["']?)[^\s"',;&]{4,}/gi,
];
/** Nobody reads more of a message, and patterns over an engine's megabyte would hold everything up. */
const MAX_CHARS = 4_096;
const MASK = '[redacted]';

/** @param secrets exact texts to take out, e.g. the engine's API key; short ones are left to the shapes. */
export function redact(text: string, secrets: readonly string[] = []): string {
  let clean = withoutSecrets(text.slice(0, MAX_CHARS));
  for (const secret of secrets) if (secret.length >= 4) clean = clean.replaceAll(secret, MASK);
  for (const shape of SECRET_SHAPES) clean = clean.replace(shape, MASK);
  return clean.replace(/\p{Cc}+/gu, ' ');
}

const SECRET_FLAG = /^--?(?:[\w-]*-)?(?:api-key|hf-token|auth-token|password|secret)(?:s|-file)?(=|$)/;

/** The values of secret flags, given as `--flag value` or `--flag=value`. */
export function secretValues(args: readonly string[]): string[] {
  return args.flatMap((arg, index) => {
    const [flag = '', delimiter] = SECRET_FLAG.exec(arg) ?? [];
    if (delimiter === '=') return [arg.slice(flag.length)];
    return delimiter === '' ? args.slice(index + 1, index + 2) : [];
  });
}

/** Command-line arguments with the values of secret flags masked, given as `--flag value` or `--flag=value`. */
export function maskSecrets(args: readonly string[]): readonly string[] {
  let isValue = false;
  return args.map((arg) => {
    const mask = isValue;
    const [flag, delimiter] = SECRET_FLAG.exec(arg) ?? [];
    isValue = delimiter === '';
    if (mask) return MASK;
    return delimiter === '=' ? `${flag}${MASK}` : redact(arg);
  });
}
