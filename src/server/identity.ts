/** Who may come in: the Host and Origin a browser names, and the bearer token. Pure but for the hashing. */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { isLoopback, type Secret } from '../config/environment.js';

export interface IdentityRules {
  readonly token: Secret | null;
  /** The address we listen on is loopback: nobody but this machine connects. */
  readonly loopbackOnly: boolean;
  /** AUTH_OPTIONAL: loopback peers need no token. */
  readonly loopbackIsFree: boolean;
}

export interface Denial {
  readonly status: 400 | 401 | 403;
  readonly name: 'BAD_HOST' | 'BAD_ORIGIN' | 'MISSING_TOKEN' | 'BAD_TOKEN';
  readonly code: number;
  readonly message: string;
}

export interface Caller {
  readonly method: string;
  readonly headers: IncomingHttpHeaders;
  readonly remoteAddress: string;
  readonly upgrade: boolean;
}

function hostnameOf(authority: string): string {
  const bracketed = /^\[([^\]]*)\](?::\d+)?$/.exec(authority);
  return (bracketed?.[1] ?? authority.replace(/:\d+$/, '')).toLowerCase();
}

/**
 * A page of another site must not talk to a local server through a browser: neither under a name that was rebound to
 * this address, nor from a foreign origin.
 */
export function checkBrowser(caller: Caller, rules: IdentityRules): Denial | null {
  const host = caller.headers.host ?? '';
  if (rules.loopbackOnly && !isLoopback(hostnameOf(host))) {
    return {
      status: 403,
      name: 'BAD_HOST',
      code: 40302,
      message: 'this server answers to localhost only; use http://127.0.0.1',
    };
  }
  const origin = caller.headers.origin;
  if (origin === undefined || (caller.method === 'GET' && !caller.upgrade)) return null;
  if (URL.canParse(origin) && new URL(origin).host === host) return null;
  return { status: 403, name: 'BAD_ORIGIN', code: 40303, message: 'requests from pages of another origin are refused' };
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

export function checkToken(
  given: string | null,
  caller: Pick<Caller, 'remoteAddress'>,
  rules: IdentityRules,
): Denial | null {
  if (rules.token === null) return null;
  if (given === null) {
    if (rules.loopbackIsFree && isLoopback(caller.remoteAddress)) return null;
    return { status: 401, name: 'MISSING_TOKEN', code: 40101, message: 'send the token as "Authorization: Bearer …"' };
  }
  if (sameToken(given, rules.token.reveal())) return null;
  return { status: 401, name: 'BAD_TOKEN', code: 40102, message: 'the token is not valid' };
}
