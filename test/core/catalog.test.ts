import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { canonicalArtifact, MAX_ARTIFACT_BYTES } from '../../src/core/artifact.js';
import { canonicalJson } from '../../src/core/canonicalJson.js';
import { type CatalogModelRules, poolsToDrain, refRefusal, type ServingPool } from '../../src/core/catalog.js';
import { hfUrl, isNamed, namesOf, parseModelRef } from '../../src/core/modelRef.js';
import { AUTO_PLACEMENT, choosePool } from '../../src/core/placement.js';
import { cutoffMs, YOUNGEST_MS } from '../../src/core/retention.js';
import { judge, type TrustPolicy } from '../../src/core/trust.js';

const DIGEST = `sha256:${'a'.repeat(64)}`;
const PERMISSIVE: TrustPolicy = {
  ...{ mode: 'permissive', allowedRegistries: [], requireSignature: false, requireSbom: false, caRoots: [] },
};
const STRICT: TrustPolicy = { ...PERMISSIVE, mode: 'strict' };
const SIGNED = { signer: 'me', algo: 'ecdsa', verified: false, timestampMs: 1 };

function model(overrides: Partial<CatalogModelRules> = {}): CatalogModelRules {
  return {
    ...{ id: 'm7', digest: DIGEST, sourceUrl: null, paths: [], verified: false, mismatched: false },
    ...{ signatures: [], sbom: null, trustPolicy: null, state: 'Active', drainAtMs: null },
    ...overrides,
  };
}

function pool(overrides: Partial<ServingPool> = {}): ServingPool {
  return { id: 'p', modelRef: 'm7', digest: null, path: null, ...overrides };
}

describe('a model reference', () => {
  it.each([
    ['sim-7b', { kind: 'name', name: 'sim-7b' }],
    [DIGEST, { kind: 'digest', digest: DIGEST }],
    ['file:models/a.gguf', { kind: 'file', path: 'models/a.gguf' }],
    ['file:/m/a%20b.gguf', { kind: 'file', path: '/m/a%20b.gguf' }],
    ['file:///m/a%20b.gguf', { kind: 'file', path: '/m/a b.gguf' }],
    ['hf:Qwen/Qwen2-GGUF/q4/a.gguf', { kind: 'hf', repo: 'Qwen/Qwen2-GGUF', revision: 'main', file: 'q4/a.gguf' }],
    ['repo:Qwen/Qwen2@v1', { kind: 'hf', repo: 'Qwen/Qwen2', revision: 'v1', file: null }],
    ['https://example.org/a.gguf', { kind: 'https', url: 'https://example.org/a.gguf' }],
    ['s3://bucket/a', { kind: 's3', rest: 'bucket/a' }],
    ['oci://ghcr.io/a:b', { kind: 'oci', rest: 'ghcr.io/a:b' }],
  ])('%s is read as what it is', (text, source) => {
    expect(parseModelRef(text)).toEqual(source);
  });

  it.each([
    '',
    'a\0b',
    'sha256:abc',
    'file:../etc/passwd',
    'file:///a/..%2f..%2fetc/passwd',
    'file:///a/%2e%2e/b',
    'file://host/x',
    'file:///a%00b',
    'hf:only',
    'hf:../..',
    'hf:a/b/../../c',
    'hf:a/b/.env',
    'https://user:secret@example.org/a',
    'https://example.org',
    'https://',
    `https://example.org/${'x'.repeat(5000)}`,
  ])('%j is refused with a reason', (text) => {
    expect(parseModelRef(text)).toMatchObject({ kind: 'invalid', why: expect.stringMatching(/./) });
  });

  it('is total, and what is to be fetched from a hub stays on its host', () => {
    const text = fc.oneof(
      fc.string(),
      fc.string().map((rest) => `hf:a/b/${rest}`),
    );
    fc.assert(
      fc.property(text, (ref) => {
        const source = parseModelRef(ref);
        const url = source.kind === 'hf' ? hfUrl(source) : null;
        if (url === null) return;
        expect(new URL(url).host).toBe('huggingface.co');
        expect(new URL(url).pathname).toMatch(/^\/[^/]+\/[^/]+\/resolve\/[^/]+\//);
      }),
    );
    expect(hfUrl({ kind: 'hf', repo: 'o/r', revision: 'main', file: 'a b.gguf' })).toBe(
      'https://huggingface.co/o/r/resolve/main/a%20b.gguf',
    );
  });
});

describe('the names of a model that is served', () => {
  it('are its own, those of the catalog, and a digest once it was verified', () => {
    const entry = model({ id: 'nice-name', sourceUrl: 'file:///m/a.gguf', paths: ['/m/a.gguf'] });
    const byPath = pool({ modelRef: 'file:a.gguf', path: '/m/a.gguf' });
    expect(namesOf(byPath, [entry])).toEqual(['file:a.gguf', 'nice-name']);
    expect(namesOf(byPath, [{ ...entry, verified: true }])).toEqual(['file:a.gguf', 'nice-name', DIGEST]);
    expect(namesOf(byPath, [model({ id: 'other', paths: ['/m/b.gguf'] })])).toEqual(['file:a.gguf']);
    expect(namesOf(pool({ modelRef: 'x', digest: DIGEST }), [entry])).toEqual(['x', DIGEST, 'nice-name']);
    expect(namesOf(pool({ modelRef: 'Qwen/Qwen2' }), [model({ id: 'qwen', sourceUrl: 'hf:Qwen/Qwen2' })])).toContain(
      'qwen',
    );
    // At the same place, with other bytes.
    const promised = pool({ modelRef: 'file:/m/a.gguf', path: '/m/a.gguf', digest: `sha256:${'e'.repeat(64)}` });
    expect(namesOf(promised, [entry])).not.toContain('nice-name');
    expect(isNamed('hf:a/b', { modelRef: 'repo:a/b' })).toBe(true);
    expect(isNamed('hf:a/b', { modelRef: 'repo:a/c' })).toBe(false);
  });

  it('lead placement to it', () => {
    const candidate = {
      ...{ id: 'p', engine: 'llamacpp' as const, modelRef: 'file:a', names: ['file:a', 'nice'], contextLength: 4096 },
      ...{ deviceMask: '0', draining: false, ready: true, recoverable: true, slotsFree: 1, queueDepth: 0 },
    };
    const request = {
      workload: 'completion' as const,
      engine: 'llamacpp' as const,
      ctx: 10,
      deadlineMs: 1000,
      placement: AUTO_PLACEMENT,
    };
    expect(choosePool({ ...request, modelRef: 'nice' }, [candidate])).toMatchObject({ ok: true, poolId: 'p' });
    expect(choosePool({ ...request, modelRef: 'nasty' }, [candidate])).toMatchObject({
      refusal: { field: 'model_ref' },
    });
  });
});

describe('a task for a model', () => {
  const codeOf = (ref: string, pools: ServingPool[], catalog: CatalogModelRules[], policy = PERMISSIVE) =>
    refRefusal(ref, pools, catalog, policy)?.code ?? null;

  it('is refused once the model is retired, by whatever name it asks', () => {
    const retired = model({ state: 'Retired', verified: true });
    expect(codeOf('m7', [pool()], [retired])).toBe('MODEL_DEPRECATED');
    expect(codeOf(DIGEST, [pool()], [retired])).toBe('MODEL_DEPRECATED');
    const served = pool({ modelRef: 'file:a', path: '/a' });
    expect(codeOf('file:a', [served], [{ ...retired, paths: ['/a'] }])).toBe('MODEL_DEPRECATED');
    expect(codeOf('file:b', [pool({ modelRef: 'file:b', path: '/b' })], [retired])).toBeNull();
  });

  it('may use a second entry of the same model that is active, and not the retired one', () => {
    const [old, young] = [model({ id: 'old', state: 'Retired' }), model({ id: 'young' })];
    const served = pool({ modelRef: 'x', digest: DIGEST });
    expect(codeOf('old', [served], [old, young])).toBe('MODEL_DEPRECATED');
    expect(codeOf('young', [served], [old, young])).toBeNull();
    expect(codeOf('x', [served], [old, young])).toBeNull();
  });

  it('is refused when the file is another one, and under a strict policy when it is unsigned or unknown', () => {
    expect(codeOf('m7', [pool()], [model({ mismatched: true })])).toBe('UNTRUSTED_ARTIFACT');
    expect(codeOf('m7', [pool()], [model()])).toBeNull();
    expect(codeOf('m7', [pool()], [model()], STRICT)).toBe('UNTRUSTED_ARTIFACT');
    expect(codeOf('m7', [pool()], [], STRICT)).toBe('UNTRUSTED_ARTIFACT');
    expect(codeOf('m7', [pool()], [model({ signatures: [SIGNED] })], STRICT)).toBeNull();
    expect(codeOf('nobody-has-it', [pool()], [], STRICT)).toBeNull();
  });

  it('needs a signature that was verified where that is asked for, under a strict policy', () => {
    const code = (verified: boolean, configured: TrustPolicy, own: TrustPolicy | null = null) =>
      judge(model({ signatures: [{ ...SIGNED, verified }], trustPolicy: own }), configured).untrusted?.code ?? null;
    const required = { ...PERMISSIVE, requireSignature: true };
    expect([code(false, { ...STRICT, requireSignature: true }), code(false, STRICT, required)]).toEqual([
      ...['SIGNATURE_UNVERIFIED', 'SIGNATURE_UNVERIFIED'],
    ]);
    expect([code(true, { ...STRICT, requireSignature: true }), code(false, STRICT)]).toEqual([null, null]);
    expect(code(false, required)).toBeNull();
  });

  it('ends the service of pools whose models are all over', () => {
    const over = model({ state: 'Retired', drainAtMs: 1000 });
    expect(poolsToDrain([pool(), pool({ id: 'q', modelRef: 'z' })], [over], 1000).map(({ id }) => id)).toEqual(['p']);
    expect(poolsToDrain([pool()], [over], 999)).toEqual([]);
    expect(poolsToDrain([pool()], [{ ...over, drainAtMs: null }], 2000)).toEqual([]);
    expect(poolsToDrain([pool({ digest: DIGEST })], [over, model({ id: 'young' })], 2000)).toEqual([]);
  });
});

describe('a trust policy', () => {
  const codes = (facts: Partial<CatalogModelRules>, policy: TrustPolicy) =>
    judge(model(facts), policy).findings.map(({ code }) => code);

  it('tells what is missing, and refuses for it only when it is strict', () => {
    const asking = { ...PERMISSIVE, requireSbom: true, allowedRegistries: ['huggingface.co/Qwen', '*.example.org'] };
    const facts = { sourceUrl: 'hf:Evil/m/a.gguf' };
    expect(codes(facts, asking)).toEqual(['REGISTRY_NOT_ALLOWED', 'UNSIGNED', 'SBOM_MISSING']);
    expect(judge(model(facts), asking).untrusted).toBeNull();
    expect(judge(model(facts), { ...asking, mode: 'strict' }).untrusted?.code).toBe('REGISTRY_NOT_ALLOWED');
    expect(judge(model(facts), { ...PERMISSIVE, requireSbom: true, mode: 'strict' }).untrusted?.code).toBe('UNSIGNED');
    expect(codes({ signatures: [SIGNED] }, PERMISSIVE)).toEqual(['SIGNATURE_UNVERIFIED']);
    const sbom = judge(model({ signatures: [SIGNED] }), { ...STRICT, requireSbom: true });
    expect(sbom.untrusted?.code).toBe('SBOM_MISSING');
  });

  it.each([
    ['hf:Qwen/m/a.gguf', true],
    ['hf:Qwen2/m/a.gguf', false],
    ['https://cdn.example.org/a', true],
    ['https://example.org/a', false],
    ['https://evil.com/cdn.example.org/a', false],
    ['https://evil.com\\.example.org/a', false],
    ['https://huggingface.co/Qwen/m/resolve/main/a', true],
    ['file:///any/where', true],
  ])('with allowed registries: %s %s', (sourceUrl, allowed) => {
    const policy = { ...PERMISSIVE, allowedRegistries: ['huggingface.co/Qwen', '*.example.org'] };
    expect(codes({ sourceUrl, signatures: [{ ...SIGNED, verified: true }] }, policy)).toEqual(
      allowed ? [] : ['REGISTRY_NOT_ALLOWED'],
    );
  });

  it('of a model makes that of the configuration tighter, never looser', () => {
    const own = { ...PERMISSIVE, allowedRegistries: ['a.org'] };
    expect(judge(model({ trustPolicy: PERMISSIVE }), STRICT).untrusted?.code).toBe('UNSIGNED');
    expect(judge(model({ trustPolicy: STRICT }), PERMISSIVE).untrusted?.code).toBe('UNSIGNED');
    const both = { ...PERMISSIVE, allowedRegistries: ['b.org'] };
    expect(codes({ sourceUrl: 'https://a.org/x', trustPolicy: own }, both)).toContain('REGISTRY_NOT_ALLOWED');
    expect(codes({ sourceUrl: 'https://b.org/x', trustPolicy: own }, both)).toContain('REGISTRY_NOT_ALLOWED');
  });
});

describe('an artifact', () => {
  const draft = { kind: 'plan' as const, content: { b: 1, a: [true, null] }, tags: ['y', 'x', 'y'], parent: null };

  it('has one text, whatever the order of its members and tags', () => {
    const one = canonicalArtifact({ ...draft, metadata: null });
    const two = canonicalArtifact({ ...draft, content: { a: [true, null], b: 1 }, tags: ['x', 'y'], metadata: null });
    expect(one).toEqual(two);
    const whole = '{"content":{"a":[true,null],"b":1},"kind":"plan","metadata":null,"parent":null,"tags":["x","y"]}';
    expect(one).toMatchObject({ whole });
    expect(canonicalJson(JSON.parse(whole))).toBe(whole);
  });

  it('says the same as JSON does, with all digits of large numbers', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(JSON.parse(canonicalJson(value))).toEqual(JSON.parse(JSON.stringify(value)));
      }),
    );
    expect(canonicalJson({ n: 12345678901234567890n })).toBe('{"n":12345678901234567890}');
  });

  it.each([
    ['content', { content: [] }],
    ['content', { content: 'text' }],
    ['content', { content: { x: 'y'.repeat(MAX_ARTIFACT_BYTES) } }],
    ['content', { content: { x: 'é'.repeat(MAX_ARTIFACT_BYTES / 2) } }],
    ['content', { content: deep(100) }],
    ['metadata', { metadata: 1 }],
    ['parent', { parent: 'sha256:short' }],
    ['tags', { tags: [''] }],
    ['tags', { tags: Array.from({ length: 33 }, (_, n) => `t${n}`) }],
  ])('is refused for its %s', (field, change) => {
    expect(canonicalArtifact({ ...draft, metadata: null, ...change })).toMatchObject({ code: 'INVALID_PARAMS', field });
  });

  function deep(levels: number): object {
    return levels === 0 ? {} : { x: deep(levels - 1) };
  }
});

describe('what is forgotten', () => {
  const now = 1_800_000_000_000;
  const bounds = { days: 1, maxCount: null, maxBytes: null };

  it('is what is beyond any bound, and never what is young', () => {
    expect(cutoffMs(now, bounds, [])).toBe(now - 86_400_000);
    expect(cutoffMs(now, bounds, [null, now - 7_200_000])).toBe(now - 7_200_000);
    expect(cutoffMs(now, bounds, [now - 90_000_000])).toBe(now - 86_400_000);
    expect(cutoffMs(now, { ...bounds, days: null }, [now - 5])).toBe(now - YOUNGEST_MS);
    expect(cutoffMs(now, { ...bounds, days: null }, [null])).toBeNull();
  });
});
