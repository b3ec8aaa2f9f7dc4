/** Who may come in: the Host and Origin a browser names, and the bearer token. Pure but for the hashing. */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { isIP } from 'node:net';
import { type Environment, isLoopback, type ListenAddress, type Secret } from '../config/environment.js';

export interface IdentityRules {
  readonly token: Secret | null;
  /** The address we listen on is loopback: nobody but this machine connects. */
  readonly loopbackOnly: boolean;
  /** AUTH_OPTIONAL: loopback peers need no token. */
  readonly loopbackIsFree: boolean;
  /** TRUST_PROXY_AUTH: a proxy on this machine has asked those it forwards who they are. */
  readonly proxyIsTrusted: boolean;
  /** Names beside loopback's that `Host` may have; lower case, no port. */
  readonly hosts: readonly string[];
  /** Origins beside our own; as browsers write them. */
  readonly origins: readonly string[];
}

export interface Denial {
  readonly status: 400 | 401 | 403;
  readonly name: 'BAD_REQUEST' | 'BAD_HOST' | 'BAD_ORIGIN' | 'MISSING_TOKEN' | 'BAD_TOKEN';
  readonly code: number;
  readonly message: string;
}

export interface Caller {
  readonly headers: IncomingHttpHeaders;
  readonly remoteAddress: string;
}

interface ServerNames {
  readonly allowed_hosts: readonly string[];
  readonly allowed_origins: readonly string[];
}

export function identityRules(environment: Environment, address: ListenAddress, names: ServerNames): IdentityRules {
  return {
    token: environment.secrets.authToken,
    loopbackOnly: isLoopback(address.host),
    loopbackIsFree: environment.authOptional,
    proxyIsTrusted: environment.trustProxyAuth,
    hosts: names.allowed_hosts.map((name) => name.toLowerCase()),
    origins: names.allowed_origins,
  };
}

function hostnameOf(authority: string): string {
  const bracketed = /^\[([^\]]*)\](?::\d+)?$/.exec(authority);
  return (bracketed?.[1] ?? authority.replace(/:\d+$/, '')).toLowerCase();
}

/** A name that nobody else can have pointed at this address. */
function isOwnName(authority: string | undefined, { hosts, loopbackOnly }: IdentityRules): boolean {
  const name = hostnameOf(authority ?? '');
  if (isLoopback(name) || hosts.includes(name)) return true;
  // A page has an address for its host only if it came from there; which one is no secret of ours.
  return !loopbackOnly && isIP(name) !== 0;
}

const BAD_HOST: Denial = {
  status: 403,
  name: 'BAD_HOST',
  code: 40302,
  message: 'this server does not go by that name; use http://127.0.0.1, or add the name to server.allowed_hosts',
};

const BAD_ORIGIN: Denial = {
  status: 403,
  name: 'BAD_ORIGIN',
  code: 40303,
  message: 'requests from pages of another origin are refused; server.allowed_origins lists those that are not',
};

/**
 * A picture or a script of another page comes by GET and without `Origin`, but browsers say where it comes from. A link that
 * somebody follows to us is let in: its page does not read what it leads to.
 */
function isForeignFetch(headers: IncomingHttpHeaders): boolean {
  const site = headers['sec-fetch-site'];
  const followed = headers['sec-fetch-mode'] === 'navigate' && headers['sec-fetch-dest'] === 'document';
  return (site === 'cross-site' || site === 'same-site') && !followed;
}

/**
 * A page of another site must not talk to a local server through a browser: neither under a name that was rebound to
 * this address, nor from a foreign origin. CORS does not cover sockets, and forms need no leave, so both are asked here.
 */
export function checkBrowser({ headers }: Caller, rules: IdentityRules): Denial | null {
  const { host, origin } = headers;
  if ((rules.loopbackOnly || rules.hosts.length > 0) && !isOwnName(host, rules)) return BAD_HOST;
  if (origin === undefined) return isForeignFetch(headers) ? BAD_ORIGIN : null;
  if (rules.origins.includes(origin)) return null;
  return URL.canParse(origin) && new URL(origin).host === host?.toLowerCase() ? null : BAD_ORIGIN;
}

export function bearerOf(headers: IncomingHttpHeaders): string | null {
  const bearer = /^Bearer (\S+)$/i.exec(headers.authorization ?? '')?.[1];
  const key = headers['x-api-key'];
  return bearer ?? (typeof key === 'string' && key !== '' ? key : null);
}

function sameToken(given: string, wanted: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(given), digest(wanted));
}

/**
 * Who asks, as limits and logs know them. Only a token that was found valid makes a name: where none is asked for, anything
 * may be sent, and a caller could be as many as it likes.
 */
export function identityOf(given: string | null, rules: IdentityRules): string {
  if (rules.token === null || given === null) return 'localhost';
  return `token:${createHash('sha256').update(given).digest('hex').slice(0, 6)}`;
}

const FORWARDED = ['forwarded', 'x-forwarded-for', 'x-forwarded-host', 'x-real-ip', 'via'] as const;

/** Who needs no token: this machine where that is allowed, but not whoever a proxy on it, or a rebound name, stands for. */
function isFree({ headers, remoteAddress }: Caller, rules: IdentityRules): boolean {
  if (!isLoopback(remoteAddress) || !isOwnName(headers.host, rules)) return false;
  const forwarded = FORWARDED.some((name) => headers[name] !== undefined);
  return forwarded ? rules.proxyIsTrusted : rules.loopbackIsFree;
}

export const MISSING_TOKEN: Denial = {
  status: 401,
  name: 'MISSING_TOKEN',
  code: 40101,
  message: 'send the token as "Authorization: Bearer …" or "X-API-Key: …"; a WebSocket may send it in connection_init',
};

export const BAD_TOKEN: Denial = { status: 401, name: 'BAD_TOKEN', code: 40102, message: 'the token is not valid' };

export function checkToken(given: string | null, caller: Caller, rules: IdentityRules): Denial | null {
  if (rules.token === null) return null;
  if (given === null) return isFree(caller, rules) ? null : MISSING_TOKEN;
  return sameToken(given, rules.token.reveal()) ? null : BAD_TOKEN;
}

/** For what a token alone may do, wherever its caller is. */
export function requireToken(headers: IncomingHttpHeaders, rules: IdentityRules): Denial | null {
  const given = bearerOf(headers);
  if (given === null) return MISSING_TOKEN;
  if (rules.token === null) {
    return { ...BAD_TOKEN, message: 'no token is valid here: set AUTH_TOKEN on the server and send the same' };
  }
  return sameToken(given, rules.token.reveal()) ? null : BAD_TOKEN;
}
