/** Who may come in, as a table: names, origins, tokens, proxies. */
import { describe, expect, it } from 'vitest';
import { readEnvironment } from '../../src/config/environment.js';
import {
  checkBrowser,
  checkToken,
  type IdentityRules,
  identityOf,
  identityRules,
  requireToken,
} from '../../src/server/identity.js';

const TOKEN = 'correct-horse-battery';
const NOBODY = { allowed_hosts: [], allowed_origins: [] };

function rules(
  env: Record<string, string> = {},
  names = NOBODY as { allowed_hosts: string[]; allowed_origins: string[] },
) {
  const environment = readEnvironment({ ORCHD_ADDR: '127.0.0.1:8080', ...env });
  return identityRules(environment, environment.addr, names);
}

const open = rules({ ORCHD_ADDR: '0.0.0.0:8080', AUTH_TOKEN: TOKEN });

describe('a browser', () => {
  const PICTURE = { host: '127.0.0.1:8080', 'sec-fetch-mode': 'no-cors', 'sec-fetch-dest': 'image' };
  const LINK = {
    ...{ host: '127.0.0.1:8080', 'sec-fetch-site': 'cross-site' },
    ...{ 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' },
  };
  const named = rules({}, { allowed_hosts: ['GPU-box.local'], allowed_origins: ['https://dash.example.org'] });
  const outside = rules({ ORCHD_ADDR: '0.0.0.0:8080', AUTH_TOKEN: TOKEN }, { ...NOBODY, allowed_hosts: ['a.b'] });

  it.each<[string, IdentityRules, Record<string, string>, string | null]>([
    ['loopback', rules(), { host: '127.0.0.1:8080' }, null],
    ['localhost', rules(), { host: 'localhost:8080' }, null],
    ['LOCALHOST', rules(), { host: 'LOCALHOST' }, null],
    ['[::1]', rules(), { host: '[::1]:8080' }, null],
    ['a rebound name', rules(), { host: 'evil.example:8080' }, 'BAD_HOST'],
    ['a name that begins like ours', rules(), { host: 'localhost.evil.example' }, 'BAD_HOST'],
    ['an address of the network', rules(), { host: '10.0.0.5:8080' }, 'BAD_HOST'],
    ['a user before the name', rules(), { host: 'evil@127.0.0.1' }, 'BAD_HOST'],
    ['two ports', rules(), { host: '127.0.0.1:80:80' }, 'BAD_HOST'],
    ['half a bracket', rules(), { host: '[::1' }, 'BAD_HOST'],
    ['nothing', rules(), { host: '' }, 'BAD_HOST'],
    ['no Host at all', rules(), {}, 'BAD_HOST'],
    ['a listed name', named, { host: 'gpu-box.LOCAL:8080' }, null],
    ['a name below a listed one', named, { host: 'x.gpu-box.local' }, 'BAD_HOST'],
    ['any name, where others may call and names are not listed', open, { host: 'gpu-box.local' }, null],
    ['an address, where names are listed', outside, { host: '10.0.0.5' }, null],
    ['another name, where names are listed', outside, { host: 'c.d' }, 'BAD_HOST'],
    ['our own page', rules(), { host: '127.0.0.1:8080', origin: 'http://127.0.0.1:8080' }, null],
    ['our own page behind TLS', named, { host: 'gpu-box.local', origin: 'https://gpu-box.local' }, null],
    [
      'another port of this machine',
      rules(),
      { host: '127.0.0.1:8080', origin: 'http://127.0.0.1:3000' },
      'BAD_ORIGIN',
    ],
    ['another site', rules(), { host: '127.0.0.1:8080', origin: 'https://evil.example' }, 'BAD_ORIGIN'],
    ['a sandbox', rules(), { host: '127.0.0.1:8080', origin: 'null' }, 'BAD_ORIGIN'],
    ['an origin that is none', rules(), { host: '127.0.0.1:8080', origin: '127.0.0.1:8080' }, 'BAD_ORIGIN'],
    ['a page or program of this machine', rules(), { host: '127.0.0.1', 'sec-fetch-site': 'none' }, null],
    ['our own page, reading', rules(), { host: '127.0.0.1', 'sec-fetch-site': 'same-origin' }, null],
    ['a picture on another site', rules(), { ...PICTURE, 'sec-fetch-site': 'cross-site' }, 'BAD_ORIGIN'],
    ['a picture on another port', rules(), { ...PICTURE, 'sec-fetch-site': 'same-site' }, 'BAD_ORIGIN'],
    ['a frame on another site', rules(), { ...LINK, 'sec-fetch-dest': 'iframe' }, 'BAD_ORIGIN'],
    ['a link on another site', rules(), LINK, null],
    [
      'a listed origin, reading',
      named,
      { host: '127.0.0.1', 'sec-fetch-site': 'cross-site', origin: 'https://dash.example.org' },
      null,
    ],
    ['a listed origin', named, { host: '127.0.0.1', origin: 'https://dash.example.org' }, null],
    ['a listed origin, other scheme', named, { host: '127.0.0.1', origin: 'http://dash.example.org' }, 'BAD_ORIGIN'],
  ])('%s', (_name, given, headers, expected) => {
    expect(checkBrowser({ headers, remoteAddress: '127.0.0.1' }, given)?.name ?? null).toBe(expected);
  });
});

describe('a token', () => {
  const required = rules({ AUTH_TOKEN: TOKEN });
  const optional = rules({ AUTH_TOKEN: TOKEN, AUTH_OPTIONAL: 'true' });
  const proxied = rules({ AUTH_TOKEN: TOKEN, TRUST_PROXY_AUTH: 'true' });
  const exposed = rules({ ORCHD_ADDR: '0.0.0.0:8080', AUTH_TOKEN: TOKEN, AUTH_OPTIONAL: 'true' });
  const here = { host: '127.0.0.1:8080' };
  const forwarded = { ...here, 'x-forwarded-for': '203.0.113.9' };

  it.each<[string, IdentityRules, string | null, Record<string, string>, string, string | null]>([
    ['none is asked for', rules(), null, here, '127.0.0.1', null],
    ['is missing', required, null, here, '127.0.0.1', 'MISSING_TOKEN'],
    ['is right', required, TOKEN, here, '10.0.0.9', null],
    ['is wrong', required, 'correct-horse-batterz', here, '127.0.0.1', 'BAD_TOKEN'],
    ['is a beginning', required, TOKEN.slice(0, -1), here, '127.0.0.1', 'BAD_TOKEN'],
    ['is longer', required, `${TOKEN}x`, here, '127.0.0.1', 'BAD_TOKEN'],
    ['is empty', required, '', here, '127.0.0.1', 'BAD_TOKEN'],
    ['optional: this machine', optional, null, here, '127.0.0.1', null],
    ['optional: this machine by IPv6', optional, null, here, '::1', null],
    ['optional: this machine, mapped', optional, null, here, '::ffff:127.0.0.1', null],
    ['optional: a wrong one is wrong all the same', optional, 'x', here, '127.0.0.1', 'BAD_TOKEN'],
    ['optional: another machine', exposed, null, here, '10.0.0.9', 'MISSING_TOKEN'],
    ['optional: a rebound name', exposed, null, { host: 'evil.example' }, '127.0.0.1', 'MISSING_TOKEN'],
    ['optional: whom a proxy here forwards', optional, null, forwarded, '127.0.0.1', 'MISSING_TOKEN'],
    [
      'optional: whom one forwards by the standard',
      optional,
      null,
      { ...here, forwarded: 'for=x' },
      '::1',
      'MISSING_TOKEN',
    ],
    ['trusted proxy: whom it forwards', proxied, null, forwarded, '127.0.0.1', null],
    ['trusted proxy: this machine itself', proxied, null, here, '127.0.0.1', 'MISSING_TOKEN'],
    ['trusted proxy: one elsewhere', proxied, null, forwarded, '10.0.0.9', 'MISSING_TOKEN'],
    ['trusted proxy: a wrong token', proxied, 'x', forwarded, '127.0.0.1', 'BAD_TOKEN'],
  ])('%s', (_name, given, token, headers, remoteAddress, expected) => {
    expect(checkToken(token, { headers, remoteAddress }, given)?.name ?? null).toBe(expected);
  });

  it('gives a caller its name', () => {
    expect(identityOf(null, required)).toBe('localhost');
    expect(identityOf(TOKEN, required)).toMatch(/^token:[0-9a-f]{6}$/);
    expect(identityOf('anything', rules())).toBe('localhost');
  });

  it('alone opens what asks for one, even where callers are free', () => {
    expect(requireToken({}, optional)?.name).toBe('MISSING_TOKEN');
    expect(requireToken({ authorization: 'Bearer x' }, optional)?.name).toBe('BAD_TOKEN');
    expect(requireToken({ 'x-api-key': TOKEN }, optional)).toBeNull();
    expect(requireToken({ authorization: `Bearer ${TOKEN}` }, rules())).toMatchObject({ code: 40102 });
  });
});
