/** Which models may be used: what a policy asks of an entry of the catalog, and what is wrong with one. Pure. */
import { isListed } from './egress.js';
import type { Refusal } from './errors.js';
import { parseModelRef } from './modelRef.js';
import type { Reason } from './pool.js';

export interface TrustPolicy {
  /** strict: what is asked for below must be there, and a signature in any case. permissive: it is missed in words. */
  readonly mode: 'strict' | 'permissive';
  /** Hosts, `*.domain` or `host/path`; empty: any. Files of this machine come from none. */
  readonly allowedRegistries: readonly string[];
  /** strict: a signature that was verified, rather than one that is only there. */
  readonly requireSignature: boolean;
  readonly requireSbom: boolean;
  readonly caRoots: readonly string[];
}

export interface SignatureMeta {
  readonly signer: string | null;
  readonly algo: string | null;
  /** That llama-orch has verified it, whatever its caller says. */
  readonly verified: boolean;
  readonly timestampMs: number | null;
}

export interface SbomRef {
  readonly uri: string | null;
  readonly digest: string | null;
}

/** What is judged of a model. */
export interface TrustFacts {
  readonly sourceUrl: string | null;
  readonly signatures: readonly SignatureMeta[];
  readonly sbom: SbomRef | null;
  readonly trustPolicy: TrustPolicy | null;
}

export const TRUST_FINDINGS = ['UNSIGNED', 'SIGNATURE_UNVERIFIED', 'REGISTRY_NOT_ALLOWED', 'SBOM_MISSING'] as const;
export type TrustFinding = (typeof TRUST_FINDINGS)[number];

/** The policy of the configuration, made tighter by that of the model; never looser. */
export function policyFor(configured: TrustPolicy, own: TrustPolicy | null): TrustPolicy {
  if (own === null) return configured;
  return {
    mode: configured.mode === 'strict' || own.mode === 'strict' ? 'strict' : 'permissive',
    // Each list is judged by itself: a source must be in both.
    allowedRegistries: configured.allowedRegistries,
    requireSignature: configured.requireSignature || own.requireSignature,
    requireSbom: configured.requireSbom || own.requireSbom,
    caRoots: [...new Set([...configured.caRoots, ...own.caRoots])],
  };
}

/** The host of a source, with what follows it; null for what is on this machine or has none. */
export function registryOf(sourceUrl: string | null): string | null {
  const source = sourceUrl === null ? null : parseModelRef(sourceUrl);
  switch (source?.kind) {
    case 'hf':
      return `huggingface.co/${source.repo}`;
    case 'https':
      return source.url.replace(/^https?:\/\//, '');
    case 'oci':
    case 's3':
      return source.rest;
    default:
      return null;
  }
}

function isAllowed(registry: string, allowed: readonly string[]): boolean {
  const [host = ''] = registry.split('/');
  if (!URL.canParse(`https://${host}`)) return false;
  const url = new URL(`https://${host}`);
  return allowed.some((entry) => {
    const [wanted = '', ...path] = entry.split('/').filter((part) => part !== '');
    if (!isListed(url, [wanted])) return false;
    return path.length === 0 || `${registry}/`.startsWith(`${[host, ...path].join('/')}/`);
  });
}

function findingsOf(model: TrustFacts, configured: TrustPolicy, policy: TrustPolicy): Reason[] {
  const found: Reason[] = [];
  const registry = registryOf(model.sourceUrl);
  const lists = [configured.allowedRegistries, model.trustPolicy?.allowedRegistries ?? []];
  if (registry !== null && lists.some((list) => list.length > 0 && !isAllowed(registry, list))) {
    found.push({
      code: 'REGISTRY_NOT_ALLOWED',
      message: `it comes from ${registry.split('/')[0]}, which allowed_registries does not name`,
      fix: 'Take it from an allowed registry, or add this one to the trust policy.',
    });
  }
  if (model.signatures.length === 0) {
    const fix = 'Sign it, and register it with its signatures.';
    found.push({ code: 'UNSIGNED', message: 'it has no signature', fix });
  } else if (!model.signatures.some(({ verified }) => verified)) {
    const message = 'its signatures are recorded as they were given; none was verified by llama-orch';
    found.push({
      code: 'SIGNATURE_UNVERIFIED',
      message,
      fix: 'Verify them with your own tools, e.g. cosign verify-blob.',
    });
  }
  if (policy.requireSbom && model.sbom === null) {
    found.push({ code: 'SBOM_MISSING', message: 'it has no SBOM', fix: 'Register it with one.' });
  }
  return found;
}

/** What keeps a model out under a strict policy. */
const UNTRUSTED: ReadonlySet<string> = new Set<TrustFinding>(['REGISTRY_NOT_ALLOWED', 'UNSIGNED', 'SBOM_MISSING']);

export interface Judgement {
  /** All that is to be said of it, the worst first. */
  readonly findings: readonly Reason[];
  /** That for which it is refused; null: it may be used. */
  readonly untrusted: Reason | null;
}

export function judge(model: TrustFacts, configured: TrustPolicy): Judgement {
  const policy = policyFor(configured, model.trustPolicy);
  const findings = findingsOf(model, configured, policy);
  const keepsOut = ({ code }: Reason) =>
    UNTRUSTED.has(code) || (code === 'SIGNATURE_UNVERIFIED' && policy.requireSignature);
  const untrusted = policy.mode === 'strict' ? (findings.find(keepsOut) ?? null) : null;
  return { findings, untrusted };
}

export function untrusted(field: string, message: string): Refusal {
  return { family: 'invalid', code: 'UNTRUSTED_ARTIFACT', field, message, retriable: false };
}
