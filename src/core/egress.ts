/** What provisioning may reach: one rule for downloads, their redirects, clones and image pulls. Pure. */
import type { Reason } from './pool.js';

export function isLoopbackName(hostname: string): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127(?:\.\d{1,3}){3}$/.test(hostname);
}

/** The host of a URL as the allow-list writes it. */
export function hostOf(url: URL): string {
  return url.host.toLowerCase();
}

/** Entries are `host`, `host:port`, or `*.domain`, which stands for the names below it. */
function isListed(url: URL, allowHosts: readonly string[]): boolean {
  const hostname = url.hostname.toLowerCase();
  return allowHosts.some((entry) => {
    const wanted = entry.toLowerCase();
    if (wanted.startsWith('*.')) return hostname.endsWith(wanted.slice(1));
    return wanted === hostname || wanted === hostOf(url);
  });
}

/** Whether the list names this very address, rather than a name that may come to mean any. */
export function isListedAddress(url: URL, allowHosts: readonly string[]): boolean {
  const isAddress = url.hostname.startsWith('[') || /^\d+(?:\.\d+){3}$/.test(url.hostname);
  return (isAddress || isLoopbackName(url.hostname)) && isListed(url, allowHosts);
}

/** Why a URL may not be opened; null when it may. */
export function egressRefusal(url: URL, allowHosts: readonly string[]): Reason | null {
  if (!isListed(url, allowHosts)) {
    return {
      code: 'POLICY_REFUSED',
      message: `policy does not allow ${hostOf(url)} to be reached`,
      fix: `Add ${hostOf(url)} to network.allow_hosts, if it may be.`,
    };
  }
  if (url.protocol === 'https:') return null;
  if (url.protocol === 'http:' && isLoopbackName(url.hostname)) return null;
  return {
    code: 'POLICY_REFUSED',
    message: `${url.protocol}//${hostOf(url)} is not https`,
    fix: 'Use an https URL; http is for this machine alone.',
  };
}
