/** The process environment, read once at start-up into plain data; nothing else reads variables. */
import { BlockList, isIP, isIPv4, isIPv6 } from 'node:net';
import { homedir } from 'node:os';
import { isAbsolute, join, normalize, resolve } from 'node:path';
import { inspect } from 'node:util';
import { ConfigError, type ConfigProblem } from './error.js';

/** Holds a value that must reach no log, error or dump: every way of printing it gives `[redacted]`. */
export class Secret {
  readonly #value: string;
  constructor(value: string) {
    this.#value = value;
  }
  /** The value itself; call it only where it is used. */
  reveal(): string {
    return this.#value;
  }
  toString(): string {
    return '[redacted]';
  }
  toJSON(): string {
    return '[redacted]';
  }
  [inspect.custom](): string {
    return '[redacted]';
  }
}

export interface ListenAddress {
  /** An IP address without brackets, or a host name. */
  readonly host: string;
  /** 0 … 65535; 0 lets the system choose. */
  readonly port: number;
}

export interface Environment {
  /** ORCHD_ADDR, or the default. Use `listenAddress` where the file may have a say as well. */
  readonly addr: ListenAddress;
  /** True when ORCHD_ADDR was set: it then wins over the file's `server.addr`. */
  readonly addrGiven: boolean;
  /** AUTH_OPTIONAL: callers on loopback need no token. */
  readonly authOptional: boolean;
  /** TRUST_PROXY_AUTH */
  readonly trustProxyAuth: boolean;
  /** ORCHD_SSE_MICROBATCH */
  readonly sseMicrobatch: boolean;
  /** LLAMA_ORCH_HOME: the data directory, absolute. */
  readonly homeDir: string;
  /** LLAMA_SERVER_BIN, absolute; null when unset. */
  readonly llamaServerBin: string | null;
  readonly secrets: EnvironmentSecrets;
}

export interface EnvironmentSecrets {
  /** AUTH_TOKEN; null when unset. */
  readonly authToken: Secret | null;
  /** DATABASE_URL, which may hold a password; null when unset. */
  readonly databaseUrl: Secret | null;
}

export const DEFAULT_ADDR: ListenAddress = { host: '127.0.0.1', port: 8080 };
export const ADDR_FIX = 'write host:port, e.g. 127.0.0.1:8080 or [::1]:8080, with a port from 0 to 65535';

const HOST_NAME = /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/i;

function isHost(host: string): boolean {
  if (isIPv4(host)) return true;
  // A name whose last label is a number is a mistyped IPv4 address, which resolvers read in surprising ways.
  return HOST_NAME.test(host) && !/(^|\.)\d+$/.test(host);
}

/** Reads `host:port` or `[ipv6]:port`; null when it is neither. */
export function parseListenAddress(text: string): ListenAddress | null {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text.trim());
  if (!match) return null;
  const [, bracketed, plain, portText] = match;
  const port = Number(portText);
  if (port > 65535) return null;
  if (bracketed !== undefined) return isIPv6(bracketed) ? { host: bracketed, port } : null;
  return plain !== undefined && isHost(plain) ? { host: plain, port } : null;
}

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4');
LOOPBACK.addAddress('::1', 'ipv6');

/** True only for what cannot be reached from another machine; a name other than `localhost` counts as reachable. */
export function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[(.*)\]$/, '$1').toLowerCase();
  if (bare === 'localhost') return true;
  const family = isIP(bare);
  if (family === 0) return false;
  return LOOPBACK.check(bare, family === 4 ? 'ipv4' : 'ipv6');
}

/** Of a token that others may try to guess. */
const MIN_PUBLIC_TOKEN_CHARS = 16;

/** Throws ConfigError `NON_LOOPBACK_WITHOUT_TOKEN` when others could call us without a token, or with one they can guess. */
export function checkExposure(addr: ListenAddress, authToken: Secret | null): void {
  if (isLoopback(addr.host) || (authToken?.reveal().length ?? 0) >= MIN_PUBLIC_TOKEN_CHARS) return;
  const host = isIPv6(addr.host) ? `[${addr.host}]` : addr.host;
  const lack =
    authToken === null ? 'no token protects it' : `its token has fewer than ${MIN_PUBLIC_TOKEN_CHARS} characters`;
  throw new ConfigError([
    {
      source: 'environment',
      position: null,
      path: 'AUTH_TOKEN',
      code: 'NON_LOOPBACK_WITHOUT_TOKEN',
      message:
        `NON_LOOPBACK_WITHOUT_TOKEN (40301): ${host}:${addr.port} can be reached from other machines and ${lack} — ` +
        'set AUTH_TOKEN, e.g. AUTH_TOKEN=$(openssl rand -hex 32), or listen on 127.0.0.1',
    },
  ]);
}

/** Where to listen: ORCHD_ADDR, else the file's `server.addr` (already validated), else the default. */
export function listenAddress(environment: Environment, configuredAddr: string | undefined): ListenAddress {
  if (environment.addrGiven || configuredAddr === undefined) return environment.addr;
  return parseListenAddress(configuredAddr) ?? environment.addr;
}

type Report = (name: string, message: string) => void;

/** A variable that is set to nothing counts as unset, as shells and compose files often leave it so. */
function readText(env: NodeJS.ProcessEnv, name: string): string | null {
  const value = env[name]?.trim();
  return value === undefined || value === '' ? null : value;
}

function readFlag(env: NodeJS.ProcessEnv, name: string, report: Report): boolean {
  const value = readText(env, name)?.toLowerCase() ?? 'false';
  if (['1', 'true', 'yes', 'on'].includes(value)) return true;
  if (!['0', 'false', 'no', 'off'].includes(value)) report(name, 'is neither true nor false — write true or false');
  return false;
}

function readAddr(env: NodeJS.ProcessEnv, report: Report): ListenAddress {
  const value = readText(env, 'ORCHD_ADDR');
  if (value === null) return DEFAULT_ADDR;
  const addr = parseListenAddress(value);
  if (addr === null) report('ORCHD_ADDR', `is not an address to listen on — ${ADDR_FIX}`);
  return addr ?? DEFAULT_ADDR;
}

function readAuthToken(env: NodeJS.ProcessEnv, report: Report): Secret | null {
  const value = readText(env, 'AUTH_TOKEN');
  if (value === null) return null;
  // Anything else cannot be sent in a header, so no caller could ever present it.
  if (!/^[\x21-\x7e]+$/.test(value)) {
    report('AUTH_TOKEN', 'has spaces or characters outside ASCII — use e.g. the output of `openssl rand -hex 32`');
  }
  return new Secret(value);
}

/** True for what PostgreSQL clients accept as a connection URL; socket URLs have no host, so `new URL` is no judge of them. */
export function isPostgresUrl(text: string): boolean {
  return /^postgres(ql)?:\/\/\S+$/.test(text);
}

function readDatabaseUrl(env: NodeJS.ProcessEnv, report: Report): Secret | null {
  const value = readText(env, 'DATABASE_URL');
  if (value === null) return null;
  if (!isPostgresUrl(value)) {
    report('DATABASE_URL', 'is not a PostgreSQL URL — write postgresql://user:password@host:5432/database');
  }
  return new Secret(value);
}

function readHomeDir(env: NodeJS.ProcessEnv, report: Report): string {
  const value = readText(env, 'LLAMA_ORCH_HOME');
  if (value === null) return join(readText(env, 'HOME') ?? homedir(), '.local', 'share', 'llama-orch');
  if (!isAbsolute(value)) {
    report('LLAMA_ORCH_HOME', 'is not an absolute path — write it from the root, e.g. /var/lib/llama-orch');
  }
  return normalize(value);
}

/** Reads every variable we honour. Throws one ConfigError naming all the bad ones, never their values. */
export function readEnvironment(env: NodeJS.ProcessEnv): Environment {
  const problems: ConfigProblem[] = [];
  const report: Report = (path, message) => problems.push({ source: 'environment', position: null, path, message });
  const llamaServerBin = readText(env, 'LLAMA_SERVER_BIN');
  const environment: Environment = {
    addr: readAddr(env, report),
    addrGiven: readText(env, 'ORCHD_ADDR') !== null,
    authOptional: readFlag(env, 'AUTH_OPTIONAL', report),
    trustProxyAuth: readFlag(env, 'TRUST_PROXY_AUTH', report),
    sseMicrobatch: readFlag(env, 'ORCHD_SSE_MICROBATCH', report),
    homeDir: readHomeDir(env, report),
    llamaServerBin: llamaServerBin === null ? null : resolve(llamaServerBin),
    secrets: { authToken: readAuthToken(env, report), databaseUrl: readDatabaseUrl(env, report) },
  };
  if (problems.length > 0) throw new ConfigError(problems);
  return environment;
}
