/** The hosts that a repository's submodules would be fetched from. */
import { readFile } from 'node:fs/promises';
import { egressRefusal } from '../../core/egress.js';
import { ProvisionError } from './provisionError.js';

const MAX_FILE_CHARS = 256 * 1024;

/** Throws ProvisionError for a submodule from where policy does not allow; relative URLs stay with the repository. */
export async function checkSubmodules(
  { file, repo }: { readonly file: string; readonly repo: string },
  allowHosts: readonly string[],
): Promise<void> {
  const text = (await readFile(file, 'utf8').catch(() => '')).slice(0, MAX_FILE_CHARS);
  for (const [, raw = ''] of text.matchAll(/^[ \t]*url[ \t]*=[ \t]*(.*)$/gim)) {
    const url = raw.trim().replace(/^"(.*)"$/, '$1');
    if (/^\.\.?\//.test(url)) continue;
    const refusal = URL.canParse(url) && !url.startsWith('file:') ? egressRefusal(new URL(url), allowHosts) : undefined;
    if (refusal === null) continue;
    const message = refusal?.message ?? `a submodule of ${repo} comes from ${url}, which is no https URL`;
    throw new ProvisionError('POLICY_REFUSED', message, refusal?.fix ?? 'Set provisioning.source.submodules: false.');
  }
}
