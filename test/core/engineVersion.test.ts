import { describe, expect, it } from 'vitest';
import { changedVersion, ENGINE_VERSION_MIXED, mixedVersions } from '../../src/core/engineVersion.js';
import { disagreement } from '../../src/core/node.js';
import { VersionGuard } from '../../src/services/supervision/versions.js';

const serves = (id: string, engineVersion: string) => ({ id, engineVersion });

describe('the versions of a set', () => {
  it('are those of its first engine, and another one is told with both and the first replica that differs', () => {
    expect(mixedVersions('2', [])).toBeNull();
    expect(mixedVersions('2', [serves('a-0', '2'), serves('a-1', '2')])).toBeNull();
    const mixed = mixedVersions('2', [serves('a-2', '1'), serves('a-1', '1'), serves('a-0', '2')]);
    expect(mixed).toMatchObject({
      code: ENGINE_VERSION_MIXED,
      message: expect.stringMatching(/version 2,.*a-1 .*version 1$/),
    });
    expect(changedVersion('1', '1')).toBeNull();
    expect(changedVersion('1', '2')?.message).toMatch(/version 2 now, and was 1/);
  });
});

describe('nodes that share a pool', () => {
  const ours = { engine: 'vllm', modelRef: 'm', contextLength: 512, quant: null, samplerProfileVersion: 's1' };

  it.each([
    ['engine', { engine: 'tgi' }, 'engine vllm here, tgi there'],
    ['model', { modelRef: 'n' }, 'model m here, n there'],
    ['context', { contextLength: 64 }, 'ctx 512 here, 64 there'],
    ['quantisation', { quant: 'q4' }, 'quant none here, q4 there'],
    ['sampler profile', { samplerProfileVersion: 's2' }, 'sampler_profile_version s1 here, s2 there'],
  ])('have to agree on what makes its replicas alike: %s', (_what, over, told) => {
    expect(disagreement(ours, { ...ours })).toBeNull();
    expect(disagreement(ours, { ...ours, ...over })).toBe(told);
  });
});

describe('a guard', () => {
  const guard = (id: string, required: boolean, others: () => ReturnType<typeof serves>[]) => {
    const told: string[] = [];
    const rules = { required, others };
    return { told, guard: new VersionGuard({ id, modelRef: 'm', rules, onMixed: ({ code }) => told.push(code) }) };
  };

  it('holds the version of what it has let in, and of nothing else', () => {
    const { guard: one, told } = guard('a-1', true, () => [serves('a-0', '1')]);
    expect(one.admit('2')?.code).toBe(ENGINE_VERSION_MIXED);
    expect([one.held, told]).toEqual([null, []]);
    expect(one.admit('1')).toBeNull();
    expect(one.held).toBe('1');
  });

  it('makes the later one give way, where two were let in without knowing of each other', () => {
    const letIn: ReturnType<typeof serves>[] = [];
    const [first, second] = ['a-0', 'a-0@1'].map((id) => guard(id, true, () => letIn.filter((one) => one.id !== id)));
    expect([first?.guard.admit('1'), second?.guard.admit('2')]).toEqual([null, null]);
    letIn.push(serves('a-0', '1'), serves('a-0@1', '2'));
    expect(first?.guard.recheck('1')).toBeNull();
    expect(second?.guard.recheck('2')?.code).toBe(ENGINE_VERSION_MIXED);
  });

  it('tells once of what may be mixed, and again of another version', () => {
    const { guard: one, told } = guard('a-1', false, () => [serves('a-0', '1')]);
    for (const version of ['2', '2', '3'])
      expect(one.held === null ? one.admit(version) : one.recheck(version)).toBeNull();
    expect([one.held, told.length]).toEqual(['3', 2]);
  });
});
