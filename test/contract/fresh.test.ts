import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';

function run(args: readonly string[]): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 60_000 });
  return { status, output: `${stdout}${stderr}` };
}

describe('contracts and generated code are as the sources make them', () => {
  it('contracts/schema.graphql', () => {
    const { status, output } = run(['scripts/print-schema.mjs', '--check']);
    expect(status, output).toBe(0);
  });

  it('contracts/config.schema.json and contracts/metrics.json', () => {
    const { status, output } = run(['scripts/print-contracts.mjs', '--check']);
    expect(status, output).toBe(0);
  });

  it('src/rest/generated', () => {
    const { status, output } = run(['scripts/openapi-types.mjs', '--check']);
    expect(status, output).toBe(0);
  });
});
