/** What provisioning may reach: one rule for downloads, their redirects, clones and image pulls. Pure. */
import type { Reason } from './pool.js';

export function isLoopbackName(hostname: string): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127(?:\.\d{1,3}){3}$/.test(hostname);
}

/** The host of a URL as the allow-list writes it. */
export function hostOf(url: URL): string {
  return url.host.toLowerCase();
}

const DEFAULT_PORTS: Readonly<Record<string, string>> = { 'https:': '443', 'http:': '80' };

/** Entries are a host, or `*.domain` for the names below it; with `:port` for that port alone. */
export function isListed(url: URL, allowHosts: readonly string[]): boolean {
  const hostname = url.hostname.toLowerCase();
  // A URL does not tell the port that its scheme has anyway.
  const ownPort = url.port === '' ? DEFAULT_PORTS[url.protocol] : url.port;
  return allowHosts.some((entry) => {
    const [, host = '', port] = /^(\[.*\]|[^:]*)(?::(\d+))?$/.exec(entry.toLowerCase()) ?? [];
    if (port !== undefined && port !== ownPort) return false;
    // Addresses have nothing below them.
    return host.startsWith('*.') ? !isAddress(url) && hostname.endsWith(host.slice(1)) : host === hostname;
  });
}

function isAddress({ hostname }: URL): boolean {
  return hostname.startsWith('[') || /^\d+(?:\.\d+){3}$/.test(hostname);
}

/** Whether the list names this very address, rather than a name that may come to mean any. */
export function isListedAddress(url: URL, allowHosts: readonly string[]): boolean {
  return (isAddress(url) || isLoopbackName(url.hostname)) && isListed(url, allowHosts);
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
