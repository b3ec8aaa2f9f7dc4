/**
 * GraphiQL without a network: one page that carries everything it needs, from a package of ours. It is 9 MB, so it is
 * made at the first request, compressed once, and kept by browsers as long as its hash stands.
 */
import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { promisify } from 'node:util';
import { brotliCompress, constants, gunzip, gzip } from 'node:zlib';

export interface GraphiQLOptions {
  readonly title?: string;
  /** Path of the GraphQL door. */
  readonly endpoint?: string;
  /** The pool that the ready operations use. */
  readonly pool?: string;
}

const DEMO_TASK = '00000000-0000-4000-8000-000000000001';

function exampleOperations(pool: string): string {
  return `# Three operations that work at once. Put the cursor into one and press the button.

query Overview {
  pools {
    name
    engine
    modelRef
    ready
    notReadyBecause { code message fix }
    queue { depth capacity lanes { priority depth capacity } }
    replicas { name state health slotsTotal slotsFree }
  }
}

mutation Submit {
  submitTask(
    input: {
      taskId: "${DEMO_TASK}"
      pool: "${pool}"
      prompt: "Write one sentence about a llama that conducts an orchestra."
      maxTokens: 64
    }
  ) {
    __typename
    ... on TaskAccepted { queuePosition predictedStartMs task { taskId status seed } }
    ... on Refusal { code message field retriable retryAfterMs }
  }
}

subscription Tokens {
  taskEvents(taskId: "${DEMO_TASK}") {
    __typename
    seq
    ... on TaskStarted { replica { name } seed }
    ... on TaskTokens { firstIndex tokens }
    ... on TaskSeam { index cause attempt }
    ... on TaskEnded { tokensOut decodeTimeMs finishReason canceled }
    ... on TaskFailed { error { code message retriable } }
  }
}
`;
}

/** The page is inline scripts and workers made from blobs; it may talk to nobody but us. */
const CONTENT_POLICY = [
  "default-src 'self'",
  "script-src 'self' 'unsafe-inline' blob:",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "font-src 'self' data:",
  "worker-src 'self' blob:",
  "connect-src 'self'",
  "frame-ancestors 'none'",
  "base-uri 'none'",
  "form-action 'none'",
].join('; ');

const HEADERS = {
  'content-type': 'text/html; charset=utf-8',
  'content-security-policy': CONTENT_POLICY,
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cache-control': 'no-cache',
  vary: 'accept, accept-encoding',
};

interface Page {
  readonly etag: string;
  readonly brotli: Buffer;
  readonly gzip: Buffer;
}

async function render(options: GraphiQLOptions): Promise<Page> {
  const { renderGraphiQL } = await import('@graphql-yoga/render-graphiql');
  // `endpoint` is read by the page, and missing from the type of its options.
  const settings = {
    title: options.title ?? 'GraphiQL',
    endpoint: options.endpoint ?? '/graphql',
    defaultQuery: exampleOperations(options.pool ?? 'demo'),
    subscriptionsProtocol: 'WS' as const,
  };
  const html = Buffer.from(renderGraphiQL(settings));
  const [brotli, gzipped] = await Promise.all([
    promisify(brotliCompress)(html, { params: { [constants.BROTLI_PARAM_QUALITY]: 5 } }),
    promisify(gzip)(html, { level: 6 }),
  ]);
  return { etag: `"${createHash('sha256').update(html).digest('base64url').slice(0, 22)}"`, brotli, gzip: gzipped };
}

async function send(page: Page, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const headers = { ...HEADERS, etag: page.etag };
  if (request.headers['if-none-match']?.includes(page.etag) === true) {
    response.writeHead(304, headers).end();
    return;
  }
  const accepted = String(request.headers['accept-encoding'] ?? '');
  const encoding = /\bbr\b/.test(accepted) ? 'br' : /\bgzip\b/.test(accepted) ? 'gzip' : null;
  const body = encoding === 'br' ? page.brotli : encoding === 'gzip' ? page.gzip : await promisify(gunzip)(page.gzip);
  response.writeHead(200, {
    ...headers,
    'content-length': body.length,
    ...(encoding === null ? {} : { 'content-encoding': encoding }),
  });
  response.end(request.method === 'HEAD' ? undefined : body);
}

export function createGraphiQL(options: GraphiQLOptions): (request: IncomingMessage, response: ServerResponse) => void {
  let page: Promise<Page> | null = null;
  return (request, response) => {
    page ??= render(options);
    page
      .then((ready) => send(ready, request, response))
      .catch(() => {
        // Made anew by the next request.
        page = null;
        if (!response.headersSent) response.writeHead(500);
        response.end();
      });
  };
}
