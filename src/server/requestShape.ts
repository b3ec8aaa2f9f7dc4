/** What no honest client sends and what two programs in a row may read in two ways. Refused before anything looks at it. */
import type { IncomingMessage } from 'node:http';
import type { Denial } from './identity.js';

/** Each may come once: of two, a proxy may believe the other one. */
const SINGLE = ['host', 'authorization', 'origin'];

function badRequest(message: string): Denial {
  return { status: 400, name: 'BAD_REQUEST', code: 40000, message };
}

function repeated({ rawHeaders }: IncomingMessage): string | null {
  const seen = new Set<string>();
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index]?.toLowerCase() ?? '';
    if (!SINGLE.includes(name)) continue;
    if (seen.has(name)) return name;
    seen.add(name);
  }
  return null;
}

/** The rest of smuggling (both lengths, bad chunks, folded headers, bare line feeds) is refused by Node's strict parser. */
export function checkShape(req: IncomingMessage, upgrade: boolean): Denial | null {
  const twice = repeated(req);
  if (twice !== null) return badRequest(`the header ${twice} was sent more than once`);
  if (!req.url?.startsWith('/')) return badRequest('the target must be a path, beginning with a slash');
  const hasBody = req.headers['transfer-encoding'] !== undefined || (req.headers['content-length'] ?? '0') !== '0';
  // Its bytes would be taken for the first frames of the new protocol.
  if (upgrade && hasBody) return badRequest('an upgrade must not have a body');
  return null;
}
