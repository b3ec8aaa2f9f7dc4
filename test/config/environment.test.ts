import { join } from 'node:path';
import { inspect } from 'node:util';
import { describe, expect, test } from 'vitest';
import {
  checkExposure,
  isLoopback,
  listenAddress,
  parseListenAddress,
  readEnvironment,
  Secret,
} from '../../src/config/environment.js';
import { ConfigError } from '../../src/config/error.js';

describe('readEnvironment', () => {
  test('nothing set', () => {
    expect(readEnvironment({ HOME: '/home/u' })).toEqual({
      addr: { host: '127.0.0.1', port: 8080 },
      addrGiven: false,
      authOptional: false,
      trustProxyAuth: false,
      sseMicrobatch: false,
      homeDir: '/home/u/.local/share/llama-orch',
      llamaServerBin: null,
      secrets: { authToken: null, databaseUrl: null },
    });
  });

  test('everything set', () => {
    const environment = readEnvironment({
      ORCHD_ADDR: '[::1]:9000',
      AUTH_TOKEN: 't0ken',
      AUTH_OPTIONAL: 'true',
      TRUST_PROXY_AUTH: '1',
      ORCHD_SSE_MICROBATCH: '1',
      DATABASE_URL: 'postgresql://u:pw@h:5432/d',
      LLAMA_ORCH_HOME: '/var/lib/orch/',
      LLAMA_SERVER_BIN: 'bin/llama-server',
    });
    expect(environment).toMatchObject({
      addr: { host: '::1', port: 9000 },
      addrGiven: true,
      homeDir: '/var/lib/orch/',
    });
    expect(environment).toMatchObject({ authOptional: true, trustProxyAuth: true, sseMicrobatch: true });
    expect(environment.llamaServerBin).toBe(join(process.cwd(), 'bin/llama-server'));
    expect(environment.secrets.authToken?.reveal()).toBe('t0ken');
    expect(environment.secrets.databaseUrl?.reveal()).toBe('postgresql://u:pw@h:5432/d');
  });

  test('set to nothing counts as unset', () => {
    const environment = readEnvironment({ ORCHD_ADDR: '', AUTH_TOKEN: ' ', AUTH_OPTIONAL: '', DATABASE_URL: '' });
    expect(environment.secrets).toEqual({ authToken: null, databaseUrl: null });
    expect(environment.addrGiven).toBe(false);
  });

  test('all bad variables are named at once, without their values', () => {
    const read = () =>
      readEnvironment({
        ORCHD_ADDR: 'localhost',
        AUTH_TOKEN: 'hunter2 hunter2',
        AUTH_OPTIONAL: 'maybe',
        DATABASE_URL: 'mysql://u:hunter2@h/d',
        LLAMA_ORCH_HOME: '~/orch',
      });
    expect(read).toThrow(ConfigError);
    try {
      read();
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      expect(error.problems.map((problem) => problem.path).sort()).toEqual([
        'AUTH_OPTIONAL',
        'AUTH_TOKEN',
        'DATABASE_URL',
        'LLAMA_ORCH_HOME',
        'ORCHD_ADDR',
      ]);
      expect(error.message).toContain('environment  ORCHD_ADDR  is not an address to listen on — write host:port');
      expect(error.message).not.toContain('hunter2');
    }
  });
});

test('a Secret cannot be printed', () => {
  const secret = new Secret('hunter2');
  const printed = [String(secret), `${secret}`, JSON.stringify({ secret }), inspect({ secret }, { showHidden: true })];
  for (const text of printed) {
    expect(text).toContain('[redacted]');
    expect(text).not.toContain('hunter2');
  }
  expect(JSON.stringify({ ...secret })).toBe('{}');
});

test.each([
  ['127.0.0.1:8080', { host: '127.0.0.1', port: 8080 }],
  ['[::]:0', { host: '::', port: 0 }],
  ['gpu-box.local:65535', { host: 'gpu-box.local', port: 65_535 }],
  ['127.0.0.1', null],
  [':8080', null],
  ['::1:8080', null],
  ['[127.0.0.1]:80', null],
  ['127.0.0.1:65536', null],
  ['127.0.0.1:-1', null],
  ['300.0.0.1:80', null],
  ['http://h:80', null],
])('parseListenAddress %s', (text, expected) => {
  expect(parseListenAddress(text)).toEqual(expected);
});

test.each([
  ['127.0.0.1', true],
  ['127.9.9.9', true],
  ['localhost', true],
  ['LOCALHOST', true],
  ['::1', true],
  ['[::1]', true],
  ['0:0:0:0:0:0:0:1', true],
  ['::ffff:127.0.0.1', true],
  ['0.0.0.0', false],
  ['::', false],
  ['::ffff:10.0.0.1', false],
  ['10.0.0.1', false],
  ['127.0.0.1.example.com', false],
  ['localhost.example.com', false],
  ['2130706433', false],
  ['', false],
])('isLoopback %s is %s', (host, expected) => {
  expect(isLoopback(host)).toBe(expected);
});

describe('checkExposure', () => {
  test('loopback, or a token, is enough', () => {
    expect(() => checkExposure({ host: '127.0.0.1', port: 8080 }, null)).not.toThrow();
    expect(() => checkExposure({ host: '127.0.0.1', port: 8080 }, new Secret('t'))).not.toThrow();
    expect(() => checkExposure({ host: '0.0.0.0', port: 8080 }, new Secret('sixteen-letters.'))).not.toThrow();
  });

  test('a token that can be guessed is not, and is not told', () => {
    const expose = () => checkExposure({ host: '0.0.0.0', port: 8080 }, new Secret('fifteen-letters'));
    expect(expose).toThrow('its token has fewer than 16 characters');
    expect(expose).not.toThrow('fifteen-letters');
  });

  test('anything else is refused with the code and the fix', () => {
    expect.assertions(3);
    try {
      checkExposure({ host: '::', port: 8080 }, null);
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      expect(error.problems[0]?.code).toBe('NON_LOOPBACK_WITHOUT_TOKEN');
      expect(error.message).toContain('NON_LOOPBACK_WITHOUT_TOKEN (40301): [::]:8080 can be reached');
      expect(error.message).toContain('set AUTH_TOKEN');
    }
  });
});

test('ORCHD_ADDR wins over the file, the file over the default', () => {
  const unset = readEnvironment({});
  expect(listenAddress(unset, undefined)).toEqual({ host: '127.0.0.1', port: 8080 });
  expect(listenAddress(unset, '10.0.0.1:80')).toEqual({ host: '10.0.0.1', port: 80 });
  expect(listenAddress(readEnvironment({ ORCHD_ADDR: '[::1]:1' }), '10.0.0.1:80')).toEqual({ host: '::1', port: 1 });
});
