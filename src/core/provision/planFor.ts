/** The plan of a pool. Pure. */
import { containerPart } from './container.js';
import { NO_PART, type Part, type ProvisionFacts, type ProvisionHost, type ProvisionPlan } from './plan.js';
import { binaryPart, packagePart } from './program.js';
import { sourcePart } from './source.js';

export function planFor(facts: ProvisionFacts, host: ProvisionHost): ProvisionPlan {
  const { engine, mode } = facts;
  const part = partFor(facts, host);
  const model = modelPart(facts);
  return {
    engine,
    mode,
    ...part,
    steps: [...part.steps, ...model.steps],
    obstacles: [...part.obstacles, ...model.obstacles],
  };
}

function partFor(facts: ProvisionFacts, host: ProvisionHost): Part {
  if (facts.mode === 'binary' && facts.binary !== null) return binaryPart(facts, facts.binary, host);
  if (facts.mode === 'source' && facts.source !== null) return sourcePart(facts, facts.source, host);
  if (facts.mode === 'container' && facts.container !== null) return containerPart(facts, facts.container, host);
  if (facts.mode === 'package' && facts.package !== null) return packagePart(facts, facts.package, host);
  return NO_PART;
}

/** As llama.cpp names the pieces of a model, of which it is given the first. */
const PIECE = /-\d{5}-of-(?!00001)\d{5}\.gguf$/;

function modelPart({ mode, model: { path, sha256s } }: ProvisionFacts): Pick<Part, 'steps' | 'obstacles'> {
  const [sha256, ...others] = sha256s;
  if (sha256 === undefined || mode === 'external') return { steps: [], obstacles: [] };
  if (path === null) {
    const message = 'the model is no file, so its checksum cannot be verified';
    const fix = 'Name a file (file:/path), or remove provisioning.model.checksum.';
    return { steps: [], obstacles: [{ code: 'UNSUPPORTED', message, fix }] };
  }
  if (PIECE.test(path)) {
    const message = `${path} is one of several pieces, and a checksum is for one file`;
    const fix =
      'Join them (llama-gguf-split --merge FIRST OUT) and name that file, or remove provisioning.model.checksum.';
    return { steps: [], obstacles: [{ code: 'UNSUPPORTED', message, fix }] };
  }
  if (others.length > 0) {
    const message = `the catalog names ${sha256s.length} digests for ${path}`;
    const fix = 'Retire or delete the models that are not this file, or name its digest: provisioning.model.checksum.';
    return { steps: [], obstacles: [{ code: 'CHECKSUM_AMBIGUOUS', message, fix }] };
  }
  const summary = `verify that ${path} has sha256 ${sha256}`;
  return { steps: [{ kind: 'verify_model', name: 'verify_model', summary, path, sha256 }], obstacles: [] };
}
