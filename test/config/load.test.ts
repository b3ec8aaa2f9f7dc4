import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { demoConfig } from '../../src/config/demo.js';
import { ConfigError } from '../../src/config/error.js';
import { loadConfig, parseConfig } from '../../src/config/load.js';

const exampleFile = join(import.meta.dirname, '..', '..', 'docs', 'config.example.yaml');
const scratch = mkdtempSync(join(tmpdir(), 'orch-config-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** The error that `act` throws; fails when it throws none, or another kind. */
function refusal(act: () => unknown): ConfigError {
  try {
    act();
  } catch (error) {
    if (error instanceof ConfigError) return error;
    throw error;
  }
  throw new Error('expected a ConfigError, nothing was thrown');
}

const refuse = (text: string): string => refusal(() => parseConfig(text, 'orch.yaml')).message;

/** A pool that is right, with more lines inside it (from line 7). */
const pool = (...lines: string[]): string =>
  [
    'pools:',
    '  - id: a',
    '    engine: llamacpp',
    '    model: m',
    '    provisioning:',
    '      mode: simulated',
    ...lines.map((line) => `    ${line}`),
    '',
  ].join('\n');

describe('a good file', () => {
  test('the example validates, and its defaults are filled in', () => {
    const [chat, rehearsal] = loadConfig(exampleFile).pools;
    expect(chat).toMatchObject({ id: 'chat', slots: 4, devices: [0], provisioning: { mode: 'binary', ports: [] } });
    expect(chat?.provisioning.env).toEqual({ OMP_NUM_THREADS: '4' });
    expect(rehearsal).toMatchObject({ id: 'rehearsal', ctx: 4096, preload: true, devices: [] });
  });

  test('the smallest file has every default', () => {
    const config = parseConfig(pool(), 'orch.yaml');
    expect(config.sessions).toEqual({ ttl_ms: 600_000, max_turns: 8 });
    expect(config.gpu).toEqual({ mode: 'nvidia' });
    expect(config.network).toEqual({ allow_hosts: [] });
    expect(config.catalog.trust_policy.mode).toBe('permissive');
    expect(config.pools[0]).toEqual({
      id: 'a',
      engine: 'llamacpp',
      model: 'm',
      ctx: 4096,
      devices: [],
      preload: true,
      require_same_engine_version: true,
      replicas: 1,
      slots: 1,
      queue: { capacity: 256, full_policy: 'reject', assumed_service_ms: 1000 },
      admission: {},
      timeouts: { wall_ms: 600_000, idle_ms: 30_000 },
      health: { canary_every_ms: 30_000 },
      provisioning: {
        mode: 'simulated',
        simulated: { tokens_per_second: 40, first_token_ms: 50, load_ms: 200, vram_bytes: 4 * 1024 ** 3 },
        allow_package_installs: false,
        allow_binary_downloads: false,
        ports: [],
        env: {},
        flags: [],
      },
    });
  });

  test('anchors and aliases work, and problems behind them are placed', () => {
    const text = `${pool('queue: &q { capacity: 8 }')}  - { id: b, engine: vllm, model: m, queue: *q, provisioning: { mode: simulated } }\n`;
    expect(parseConfig(text, 'orch.yaml').pools[1]?.queue.capacity).toBe(8);
    expect(refuse(text.replace('capacity: 8', 'capacity: 0'))).toContain(
      'orch.yaml:7:17  pools[1].queue.capacity  is too small',
    );
  });

  test('the demo is simulated throughout and fresh on every call', () => {
    const demo = demoConfig();
    expect(demo.gpu.mode).toBe('simulated');
    expect(demo.gpu.devices?.map((device) => device.memory_bytes)).toEqual([25_769_803_776, 12_884_901_888]);
    expect(demo.pools).toHaveLength(1);
    expect(demo.pools[0]).toMatchObject({ id: 'demo', model: 'demo-7b', replicas: 2, slots: 2, devices: [0, 1] });
    expect(demo.pools[0]?.provisioning).toMatchObject({ mode: 'simulated', simulated: { vram_bytes: 6 * 1024 ** 3 } });
    expect(demoConfig()).not.toBe(demo);
  });
});

describe('a refusal names line, key and fix', () => {
  const simulatedGpu = 'gpu: { mode: simulated, devices: [{ name: S, memory_bytes: 1000 }] }\n';
  const withMode = (mode: string, ...lines: string[]) => pool(...lines).replace('mode: simulated', `mode: ${mode}`);

  test.each([
    ['unknown key', pool('qeue: {}'), 'orch.yaml:7:5  pools[0].qeue  is not a known key — did you mean queue?'],
    [
      'unknown key, nothing near',
      pool('queue:', '  zzz: 1'),
      'orch.yaml:8:7  pools[0].queue.zzz  is not a known key — remove it; the keys here are capacity, full_policy, assumed_service_ms',
    ],
    [
      'unknown top key',
      `${pool()}sesions: {}\n`,
      'orch.yaml:7:1  sesions  is not a known key — did you mean sessions?',
    ],
    ['merge key', pool('<<: {}'), 'orch.yaml:7:5  pools[0].…  is not a known key'],
    ['prototype key', pool('__proto__: {}'), 'orch.yaml:7:5  pools[0].__proto__  is not a known key'],
    [
      'missing key',
      'pools:\n  - { id: a, engine: vllm, provisioning: { mode: simulated } }\n',
      'orch.yaml:2:5  pools[0].model  is missing — add it: text',
    ],
    [
      'missing choice',
      'pools:\n  - id: a\n    model: m\n',
      'orch.yaml:2:5  pools[0].engine  is missing — add it: one of llamacpp, vllm, tgi, triton',
    ],
    [
      'provisioning is never assumed',
      'pools:\n  - { id: a, engine: vllm, model: m }\n',
      'pools[0].provisioning  is missing — add it: a section of keys',
    ],
    ['no pools', 'server: {}\n', 'orch.yaml:1:1  pools  is missing — add it: a list'],
    ['empty pools', 'pools: []\n', 'orch.yaml:1:1  pools  is too short — list at least 1'],
    ['empty key', 'pools:\n', 'orch.yaml:1:1  pools  is empty — give it a list, or remove the key'],
    ['not a section', '- a\n', 'orch.yaml:1:1  must be a section of keys'],
    [
      'choice',
      pool().replace('llamacpp', 'lamacpp'),
      'orch.yaml:3:5  pools[0].engine  is not one of the choices — write one of llamacpp, vllm, tgi, triton (did you mean llamacpp?)',
    ],
    [
      'number as text',
      pool('ctx: "4096"'),
      'orch.yaml:7:5  pools[0].ctx  must be a number — write it without quotes or a unit',
    ],
    ['fraction', pool('ctx: 1.5'), 'pools[0].ctx  must be a whole number'],
    ['zero ctx', pool('ctx: 0'), 'pools[0].ctx  is too small — use at least 1'],
    ['replicas', pool('replicas: 65'), 'pools[0].replicas  is too large — use at most 64'],
    [
      'queue capacity',
      pool('queue: { capacity: 100001 }'),
      'orch.yaml:7:14  pools[0].queue.capacity  is too large — use at most 100000',
    ],
    [
      'ttl',
      `${pool()}sessions: { ttl_ms: 600001 }\n`,
      'orch.yaml:7:13  sessions.ttl_ms  is too large — use at most 600000',
    ],
    [
      'boolean as text',
      pool('preload: "yes"'),
      'pools[0].preload  must be true or false — write true or false, without quotes',
    ],
    [
      'rate',
      pool('admission: { priorities: [{ name: batch, rate_limit_rps: 0 }] }'),
      'priorities[0].rate_limit_rps  is out of range — use a number above 0',
    ],
    [
      'priority twice',
      pool('admission: { priorities: [{ name: batch }, { name: batch }] }'),
      'priorities[1].name  repeats a priority — keep one',
    ],
    ['pool id', pool().replace('id: a', 'id: A b'), 'orch.yaml:2:5  pools[0].id  is not a pool id — use 1 to 63'],
    [
      'pool id twice',
      pool() + pool().replace('pools:\n', ''),
      'orch.yaml:7:5  pools[1].id  is already the id of pools[0] — give every pool its own id',
    ],
    [
      'external without endpoint',
      withMode('external'),
      'orch.yaml:2:5  pools[0].endpoint  is missing: mode external attaches to a running engine — add e.g. endpoint:',
    ],
    [
      'endpoint without external',
      pool('endpoint: http://h:1'),
      'orch.yaml:7:5  pools[0].endpoint  belongs to provisioning.mode external, not simulated — remove it',
    ],
    [
      'endpoint scheme',
      withMode('external', 'endpoint: ftp://h'),
      'orch.yaml:7:5  pools[0].endpoint  is not an http(s) URL — write',
    ],
    [
      'binary without its section',
      withMode('binary'),
      'orch.yaml:5:5  pools[0].provisioning.binary  is missing: provisioning.mode is binary — add the binary section',
    ],
    ['source without its section', withMode('source'), 'pools[0].provisioning.source  is missing'],
    [
      'download without checksum',
      withMode('binary', '  binary: { url: https://h/x }'),
      'orch.yaml:7:7  pools[0].provisioning.binary.checksum  is missing: a download needs one — add checksum',
    ],
    [
      'relative binary',
      withMode('binary', '  binary: { url: file://x/y }'),
      'orch.yaml:7:17  pools[0].provisioning.binary.url  is neither https:// nor file:///',
    ],
    [
      'checksum',
      withMode('binary', '  binary: { url: file:///x, checksum: abc }'),
      'binary.checksum  is not a digest — write sha256:',
    ],
    [
      'half a simulation',
      withMode('binary', '  binary: { url: file:///x }', '  simulated: {}'),
      'orch.yaml:8:7  pools[0].provisioning.simulated  has no effect in mode binary — remove it, or choose',
    ],
    [
      'env value',
      pool('  env: { N: 4 }'),
      'orch.yaml:7:14  pools[0].provisioning.env.N  must be text — put it in quotes',
    ],
    ['env name', pool('  env: { "9x": "" }'), 'pools[0].provisioning.env.9x  is not a variable name — use letters'],
    ['device twice', pool('devices: [0, 0]'), 'orch.yaml:7:18  pools[0].devices[1]  names a device twice'],
    [
      'device outside',
      simulatedGpu + pool('devices: [0, 1]'),
      'orch.yaml:8:18  pools[0].devices[1]  device 1 does not exist: gpu.devices describes 0 to 0 — use one',
    ],
    [
      'tensor split',
      pool('devices: [0]', 'tensor_split: [1, 2]'),
      'orch.yaml:8:5  pools[0].tensor_split  has 2 ratios for 1 devices — give one',
    ],
    [
      'simulated GPU undescribed',
      `gpu: { mode: simulated }\n${pool()}`,
      'orch.yaml:1:1  gpu.devices  is missing: simulated GPUs must be described — add',
    ],
    [
      'real GPU described',
      `gpu: { devices: [{ name: S, memory_bytes: 1 }] }\n${pool()}`,
      'gpu.devices  describes simulated GPUs, but gpu.mode is nvidia — remove it',
    ],
    ['address', `${pool()}server: { addr: "8080" }\n`, 'server.addr  is not an address to listen on — write host:port'],
    ['database', `${pool()}database: { url: mysql://h/d }\n`, 'database.url  is not a PostgreSQL URL — write'],
  ])('%s', (_name, text, expected) => {
    expect(refuse(text)).toContain(expected);
  });

  test('every problem is listed, in the order of the file', () => {
    const error = refusal(() => parseConfig(pool('ctx: x', 'slots: 0', 'colour: red'), 'orch.yaml'));
    expect(error.problems.map((problem) => [problem.position?.line, problem.path])).toEqual([
      [7, 'pools[0].ctx'],
      [8, 'pools[0].slots'],
      [9, 'pools[0].colour'],
    ]);
    expect(error.message.split('\n')).toHaveLength(3);
  });

  test('a flood of problems is cut', () => {
    const text = pool(...Array.from({ length: 60 }, (_, index) => `x${index}: 1`));
    expect(refuse(text).split('\n').at(-1)).toBe('… and 10 more');
  });

  test.each([
    ['tab', 'pools:\n\t- id: a\n', 'orch.yaml:2:1'],
    ['open quote', 'a: 1\nb: "x\n', 'orch.yaml:3:1'],
    ['key twice', 'a: 1\na: 2\n', 'orch.yaml:2:1  repeats a key of this section — keep one of them'],
    ['two documents', 'a: 1\n---\nb: 1\n', 'begins a second YAML document — keep one per file'],
    ['tag', 'a: !!js/function x\n', 'orch.yaml:1:4  carries a tag (!…) that is not supported — remove the tag'],
    ['dangling alias', 'a: 1\nb: *x\n', 'orch.yaml:2:4  is an alias of nothing — define it'],
    ['depth', '['.repeat(20_000), 'is nested too deeply — flatten it'],
    ['depth in one line', '- '.repeat(500_000), 'is nested too deeply — flatten it'],
    ['nothing', '# only a comment\n', 'orch.yaml  is empty — begin with'],
  ])('syntax: %s', (_name, text, expected) => {
    expect(refuse(text)).toContain(expected);
  });

  test('aliases are bounded in number and in what they unfold to', () => {
    const laughs = ['a0: &a0 [x]'];
    for (let level = 1; level < 9; level += 1) {
      laughs.push(
        `a${level}: &a${level} [${Array(9)
          .fill(`*a${level - 1}`)
          .join(', ')}]`,
      );
    }
    expect(refuse(laughs.join('\n'))).toContain('uses too many aliases');
    expect(refuse(`a: &a x\nb: [${Array(200).fill('*a').join(', ')}]`)).toContain('uses too many aliases');
  });

  test('no secret of the file is repeated', () => {
    const secret = 'hunter2';
    const texts = [
      `${pool()}database: { url: "mysql://u:${secret}@h/d" }\n`,
      pool(`endpoint: https://u:${secret}@h`),
      pool(`  env: { "TOKEN=${secret}": "" }`),
      pool('  env:', `    TOKEN: [${secret}]`),
      pool('  env:', `    TOKEN: "${secret}`),
      pool(`"postgres://u:${secret}@h": 1`),
      pool('  env:', `    TOKEN: @${secret}`),
      `a: "x" ${secret}\n`,
    ];
    for (const text of texts) expect(refuse(text)).not.toContain(secret);
  });
});

describe('the file itself', () => {
  const message = (file: string): string => refusal(() => loadConfig(file)).message;

  test('is named when it cannot be used', () => {
    const big = join(scratch, 'big.yaml');
    writeFileSync(big, `# ${'x'.repeat(1024 * 1024)}`);
    const latin = join(scratch, 'latin.yaml');
    writeFileSync(latin, Buffer.from([0x61, 0x3a, 0x20, 0xe9, 0x0a]));
    const folder = join(scratch, 'folder');
    mkdirSync(folder);
    const missing = join(scratch, 'missing.yaml');
    expect(message(missing)).toBe(
      `${missing}  does not exist — check the path, or begin with docs/config.example.yaml`,
    );
    expect(message(big)).toContain(`${big}  is larger than 1 MB`);
    expect(message(latin)).toContain(`${latin}  is not UTF-8 text`);
    expect(message(folder)).toContain(`${folder}  is not a regular file`);
    expect(refuse(readFileSync(big, 'utf8'))).toContain('is larger than 1 MB');
  });
});
