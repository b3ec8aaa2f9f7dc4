/**
 * The secrets that this process was given, so that they are taken out of whatever it writes or shows, in whatever words
 * they come back: an engine that prints its arguments, a driver that quotes its connection string.
 */

const MASK = '[redacted]';
/** A shorter one would be found in ordinary words; shapes and keys have to do for it. */
const MIN_CHARS = 6;
const MAX_SECRETS = 1_000;

const known = new Set<string>();

/** For the rest of the process. */
export function keepSecret(secrets: readonly string[]): void {
  for (const secret of secrets) {
    // As JSON and URLs have it, too.
    for (const text of [secret, JSON.stringify(secret).slice(1, -1), encodeURIComponent(secret)]) {
      if (text.length >= MIN_CHARS && known.size < MAX_SECRETS) known.add(text);
    }
  }
}

/** The text without any secret that was kept. */
export function withoutSecrets(text: string): string {
  let clean = text;
  for (const secret of known) if (clean.includes(secret)) clean = clean.replaceAll(secret, MASK);
  return clean;
}
