import { expect, it } from 'vitest';
import { readEnvironment } from '../../src/config/environment.js';
import { parseConfig } from '../../src/config/load.js';
import { secretsOf } from '../../src/server/secrets.js';
import { createLogger } from '../../src/telemetry/log.js';
import { keepSecret } from '../../src/telemetry/secrets.js';

const config = parseConfig(
  `pools:
  - id: p
    engine: tgi
    model: m
    provisioning:
      mode: simulated
      env: { MAX_TOTAL_TOKENS: "131072", MAX_TOKEN: "65536000", HF_TOKEN: "hf-secret-1", API_KEYS: "a-key,b-key" }
`,
  'test.yaml',
);

it('takes for a secret what its name says, and no number', () => {
  const environment = readEnvironment({});
  expect(secretsOf(environment, config)).toEqual(['hf-secret-1', 'a-key,b-key']);
});

it('is taken out of a line of the log, which is JSON still', () => {
  const lines: string[] = [];
  const log = createLogger({ write: (line: string) => void lines.push(line) });
  keepSecret(['987654', 'quoted"secret']);
  log.info(
    { bytes: 1_987_654, of: { 'in 987654': ['987654'] }, left: 42, url: 'http://h/?token=a"b' },
    'a quoted"secret here',
  );
  const [line = ''] = lines;
  expect(line.endsWith('\n')).toBe(true);
  expect(JSON.parse(line)).toMatchObject({
    ...{ bytes: '[redacted]', of: { 'in [redacted]': ['[redacted]'] }, left: 42, msg: 'a [redacted] here' },
  });
  expect(line).not.toMatch(/987654|quoted/);
});
