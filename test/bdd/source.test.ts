/** What no run can show, read off the source. */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';

it('the token is shown to nothing but a comparison that takes the same time for every token', () => {
  const source = readFileSync('src/server/identity.ts', 'utf8');
  const shown = source.split('\n').filter((line) => line.includes('.reveal()'));
  expect(shown.length).toBeGreaterThan(0);
  for (const line of shown) expect(line).toContain('sameToken(given, rules.token.reveal())');
  // Digests have one length: timingSafeEqual tells by an error when its arguments have not.
  expect(/function sameToken\(.*?\n}/s.exec(source)?.[0]).toContain('timingSafeEqual(digest(given), digest(wanted))');
});
