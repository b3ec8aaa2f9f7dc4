import { expect, test } from 'vitest';
import { demoConfig } from '../../src/config/demo.js';
import { nearest } from '../../src/config/describe.js';
import { loadConfig } from '../../src/config/load.js';
import { notBuiltYet } from '../../src/config/notBuilt.js';
import { configJsonSchema } from '../../src/config/schema.js';

test('the JSON Schema is the same on every call and closes every object', () => {
  const first = JSON.stringify(configJsonSchema());
  expect(JSON.stringify(configJsonSchema())).toBe(first);
  const open: string[] = [];
  const walk = (node: unknown, path: string): void => {
    if (typeof node !== 'object' || node === null) return;
    if ('properties' in node && !('additionalProperties' in node && node.additionalProperties === false))
      open.push(path);
    for (const [key, child] of Object.entries(node)) walk(child, `${path}/${key}`);
  };
  walk(configJsonSchema(), '');
  expect(open).toEqual([]);
});

test.each([
  ['replcas', 'replicas'],
  ['full-policy', 'full_policy'],
  ['Queue', 'queue'],
  ['zzz', null],
  ['x'.repeat(500_000), null],
])('nearest to %.20s', (word, expected) => {
  expect(nearest(word, ['replicas', 'full_policy', 'queue'])).toBe(expected);
});

test('settings without effect are named with their path', () => {
  const config = loadConfig('docs/config.example.yaml');
  const [pool, ...others] = config.pools;
  if (pool === undefined) throw new Error('the example has no pool');
  const weighed = { ...pool, admission: { priorities: [{ name: 'batch' as const, weight: 2 }] } };
  expect(notBuiltYet({ ...config, pools: [weighed, ...others] })).toContainEqual(
    expect.stringMatching(/^pools\..+\.admission\.priorities\.batch\.weight: is not built yet/),
  );
  const { trust_policy, ...catalog } = config.catalog;
  const notes = notBuiltYet({
    ...config,
    catalog: { ...catalog, trust_policy: { ...trust_policy, require_signature: true, ca_roots: ['r'] } },
    pools: [
      { ...pool, quant: 'q4', provisioning: { ...pool.provisioning, ports: [9000], model: { cache_dir: '/c' } } },
      ...others,
    ],
  });
  expect(notes.map((note) => note.split(':')[0])).toEqual([
    ...[
      `pools.${pool.id}.quant`,
      `pools.${pool.id}.provisioning.ports`,
      `pools.${pool.id}.provisioning.model.cache_dir`,
    ],
    ...['catalog.trust_policy.require_signature', 'catalog.trust_policy.ca_roots'],
  ]);
  expect(notBuiltYet(config)).toEqual([]);
  expect(notBuiltYet(demoConfig())).toEqual([]);
});
