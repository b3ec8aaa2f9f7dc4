/** contracts/config.schema.json is the file's shape for editors and other programs: it has to agree with the program. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { describe, expect, it } from 'vitest';
import { parse as parseYaml } from 'yaml';
import { parseConfig } from '../../src/config/load.js';
import { simConfig } from '../support/world.js';

const validate = new Ajv2020({ strict: true, allErrors: true }).compile(
  JSON.parse(readFileSync('contracts/config.schema.json', 'utf8')) as object,
);

function examples(): [string, string][] {
  const files = readdirSync('docs').filter((name) => name.endsWith('.yaml'));
  const markdown = [
    'README.md',
    ...readdirSync('docs').flatMap((name) => (name.endsWith('.md') ? [join('docs', name)] : [])),
  ];
  const blocks = markdown.flatMap((name) =>
    [...readFileSync(name, 'utf8').matchAll(/```yaml\n(.*?)```/gs)].map(([, text = ''], index): [string, string] => [
      `${name} #${index + 1}`,
      text,
    ]),
  );
  return [...files.map((name): [string, string] => [name, readFileSync(join('docs', name), 'utf8')]), ...blocks];
}

describe('a good file', () => {
  it.each([...examples(), ['of the tests', simConfig()] as const])('%s', (_name, text) => {
    validate(parseYaml(text));
    expect(validate.errors).toBeNull();
    expect(parseConfig(text, 'x.yaml').pools.length).toBeGreaterThan(0);
  });
});

const TOML = `
# a pool that is right
[server]
addr = "127.0.0.1:0"

[[pools]]
id = "a"
engine = "llamacpp"
model = "m"
queue = { capacity = 8, full_policy = "drop-lru" }

[pools.provisioning]
mode = "simulated"
flags = [
  "--x",
]

[[pools]]
id = "b"
engine = "vllm"
model = """
id = "not a key"
"""

[pools.timeouts]
wall_ms = 1000

[pools.provisioning]
mode = "simulated"

[pools.provisioning.env]
"HF_HOME" = "/x"
`;

describe('TOML', () => {
  it('gives what the same file gives in YAML', () => {
    const yaml = `
server: { addr: "127.0.0.1:0" }
pools:
  - { id: a, engine: llamacpp, model: m, queue: { capacity: 8, full_policy: drop-lru }, provisioning: { mode: simulated, flags: [--x] } }
  - { id: b, engine: vllm, model: "id = \\"not a key\\"\\n", timeouts: { wall_ms: 1000 }, provisioning: { mode: simulated, env: { HF_HOME: /x } } }
`;
    expect(parseConfig(TOML, 'x.toml')).toEqual(parseConfig(yaml, 'x.yaml'));
    validate(parseYaml(yaml));
    expect(validate.errors).toBeNull();
  });

  const swap = (from: string, to: string) => TOML.replace(from, to);
  it.each<[string, string, string]>([
    [
      'unknown key',
      swap('wall_ms', 'wal_ms'),
      'x.toml:26:1  pools[1].timeouts.wal_ms  is not a known key — did you mean wall_ms?',
    ],
    [
      'unknown section',
      `${TOML}[sesions]\nttl_ms = 1\n`,
      'x.toml:33:1  sesions  is not a known key — did you mean sessions?',
    ],
    [
      'unknown key, inline',
      swap('capacity', 'size'),
      'x.toml:10:1  pools[0].queue.size  is not a known key — remove it',
    ],
    [
      'number as text',
      swap('1000', '"1000"'),
      'x.toml:26:1  pools[1].timeouts.wall_ms  must be a number — write it without quotes',
    ],
    ['too small', swap('1000', '0'), 'x.toml:26:1  pools[1].timeouts.wall_ms  is too small — use at least 1'],
    [
      'choice',
      swap('"vllm"', '"vlm"'),
      'x.toml:20:1  pools[1].engine  is not one of the choices — write one of llamacpp, vllm',
    ],
    ['missing', swap('model = "m"\n', ''), 'x.toml:6:1  pools[0].model  is missing — add it: text'],
    [
      'same id',
      swap('id = "b"', 'id = "a"'),
      'x.toml:19:1  pools[1].id  is already the id of pools[0] — give every pool',
    ],
    [
      'mode without section',
      swap('mode = "simulated"\n\n[pools.provisioning.env]', 'mode = "source"\n\n[pools.provisioning.env]'),
      'x.toml:28:1  pools[1].provisioning.source  is missing',
    ],
    ['date', swap('"m"', '2026-01-01'), 'x.toml:9:1  pools[0].model  must be text'],
    [
      'variable',
      swap('"HF_HOME" = "/x"', '"9x" = "/x"'),
      'x.toml:32:1  pools[1].provisioning.env.9x  is not a variable name',
    ],
    ['address', swap('127.0.0.1:0', 'x'), 'x.toml:4:1  server.addr  is not an address to listen on — write host:port'],
    ['no value', swap('addr = "127.0.0.1:0"', 'addr ='), 'x.toml:4:'],
    ['open quote', swap('id = "a"', 'id = "a'), 'x.toml:7:'],
    ['key twice', swap('id = "a"', 'id = "a"\nid = "c"'), 'x.toml:8:1  is not valid TOML'],
    ['nothing', '# only this\n', 'x.toml  is empty — begin with'],
    ['depth', `a = ${'['.repeat(5_000)}`, 'x.toml'],
    ['YAML', 'pools:\n  - id: a\n', 'x.toml:1:'],
  ])('refuses with line, key and fix: %s', (_name, text, expected) => {
    expect(() => parseConfig(text, 'x.toml')).toThrow(expected);
  });

  it('repeats no secret of the file, and stays quick however many keys are wrong', () => {
    for (const text of [
      'url = "postgres://u:hunter2',
      'env = { T = hunter2 }',
      '[server]\nhunter2\n',
      'a = "hunter2" x',
    ]) {
      const said = (): string => {
        try {
          return JSON.stringify(parseConfig(text, 'x.toml'));
        } catch (error) {
          return String(error);
        }
      };
      expect(said()).toContain('x.toml');
      expect(said()).not.toContain('hunter2');
    }
    const many = Array.from({ length: 40_000 }, (_, index) => `k${index} = 1`).join('\n');
    expect(() => parseConfig(many, 'x.toml')).toThrow('… and ');
  });
});

describe('a mistake is one for both', () => {
  const good = parseYaml(simConfig()) as { pools: Record<string, unknown>[] };
  const wrong: [string, object][] = [
    ['unknown key', { qeue: {} }],
    ['number as text', { ctx: '4096' }],
    ['fraction', { slots: 1.5 }],
    ['zero', { ctx: 0 }],
    ['too many', { replicas: 65 }],
    ['choice', { engine: 'lamacpp' }],
    ['id', { id: 'A b' }],
    ['list', { devices: 0 }],
    ['policy', { queue: { full_policy: 'drop' } }],
    ['capacity', { queue: { capacity: 100_001 } }],
    ['priority', { admission: { priorities: [{ name: 'urgent' }] } }],
    ['mode', { provisioning: { mode: 'docker' } }],
    ['checksum', { provisioning: { mode: 'binary', binary: { url: 'https://h/x', checksum: 'abc' } } }],
    ['environment', { provisioning: { mode: 'simulated', env: { T: 4 } } }],
  ];
  it.each(wrong)('%s', (_name, over) => {
    const file = { ...good, pools: good.pools.map((pool) => ({ ...pool, ...over })) };
    expect(validate(file)).toBe(false);
    expect(() => parseConfig(JSON.stringify(file), 'x.yaml')).toThrow(/x\.yaml:1:\d+ {2}pools\[0\].* — /);
  });
});
