/** What all dialects do alike: repeat what is harmless, never what is not, and give up in time. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, it } from 'vitest';
import { ENGINE_RETRY, retryDelayMs } from '../../src/core/backoff.js';
import type { EngineAdapter } from '../../src/engines/adapter.js';
import { createLlamaCppAdapter } from '../../src/engines/llamacpp/adapter.js';
import { ask, deadline, failure, run } from '../support/adapters.js';

type Handler = (request: IncomingMessage, response: ServerResponse, number: number) => void;

/** An engine of a few lines. `asked` tells how often it was. */
async function withEngine(
  handler: Handler,
  test: (adapter: EngineAdapter, asked: () => number) => Promise<void>,
  options: { idleTimeoutMs?: number; unaryTimeoutMs?: number } = {},
): Promise<void> {
  let asked = 0;
  const server = createServer((request, response) => {
    asked += 1;
    request.resume();
    handler(request, response, asked);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const baseUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const adapter = createLlamaCppAdapter({ baseUrl, ...options });
  try {
    await test(adapter, () => asked);
  } finally {
    await adapter.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

const answer = (status: number, body = '{}', headers = {}): Handler => {
  return (_request, response) => response.writeHead(status, headers).end(body);
};
const TOKENS = '{"tokens":[1,2,3]}';

describe('a call that changes nothing', () => {
  it('is repeated until it succeeds', async () => {
    const flaky: Handler = (_request, response, number) => {
      if (number < 4) response.writeHead(500).end('{"error":{"code":500,"message":"m","type":"server_error"}}');
      else response.end(TOKENS);
    };
    await withEngine(flaky, async (adapter, asked) => {
      expect(await adapter.countTokens('a b c', deadline())).toBe(3);
      expect(asked()).toBe(4);
    });
  });

  it('is repeated when the connection breaks', async () => {
    const breaking: Handler = (_request, response, number) => {
      if (number === 1) response.destroy();
      else response.end(TOKENS);
    };
    await withEngine(breaking, async (adapter, asked) => {
      expect(await adapter.countTokens('a b c', deadline())).toBe(3);
      expect(asked()).toBe(2);
    });
  });

  it('is asked four times in all', async () => {
    await withEngine(answer(500), async (adapter, asked) => {
      await expect(adapter.countTokens('x', deadline())).rejects.toMatchObject({ code: 'INTERNAL', status: 500 });
      expect(asked()).toBe(ENGINE_RETRY.attempts);
    });
  });

  it.each([
    ['a refusal for good', answer(400)],
    ['an answer of another shape', answer(200, '{"tokens":1}')],
    ['no JSON', answer(200, '<html>')],
    ['a redirect', answer(302, '', { location: 'http://127.0.0.1:1/' })],
    ['an answer without end', answer(200, `{"tokens":[${'1,'.repeat(5_000_000)}1]}`)],
  ])('is not repeated after %s', async (_name, handler) => {
    await withEngine(handler, async (adapter, asked) => {
      await expect(adapter.countTokens('x', deadline())).rejects.toMatchObject({ retriable: false });
      expect(asked()).toBe(1);
    });
  });

  it('ends with the reason of its caller, also between two tries', async () => {
    const abort = new AbortController();
    const reason = new Error('enough');
    const aborting: Handler = (_request, response) => {
      response.writeHead(500).end();
      setImmediate(() => abort.abort(reason));
    };
    await withEngine(aborting, async (adapter) => {
      await expect(adapter.countTokens('x', abort.signal)).rejects.toBe(reason);
    });
  });

  it('has a deadline of its own for each try', async () => {
    await withEngine(
      () => {}, // accepts and never answers
      async (adapter, asked) => {
        await expect(adapter.countTokens('x', deadline())).rejects.toMatchObject({ code: 'DECODE_TIMEOUT' });
        expect(asked()).toBe(4);
      },
      { unaryTimeoutMs: 50 },
    );
  });
});

describe('a question about now, and a completion', () => {
  it('are asked once', async () => {
    await withEngine(answer(503), async (adapter, asked) => {
      expect(await adapter.health(deadline())).toMatchObject({ state: 'loading', live: true, ready: false });
      expect(asked()).toBe(1);
      expect(failure(await run(adapter, ask()))).toBe('POOL_UNREADY before_first_token lost=false');
      expect(asked()).toBe(2);
    });
  });

  it('that an engine accepts and never answers end with the idle timeout', async () => {
    await withEngine(
      () => {},
      async (adapter) => {
        expect(failure(await run(adapter, ask()))).toBe('DECODE_TIMEOUT before_first_token lost=true');
      },
      { idleTimeoutMs: 50 },
    );
  });

  it('of which an engine answers with a page for people is malformed', async () => {
    const page = answer(200, '<html><body>It works!</body></html>', { 'content-type': 'text/html' });
    await withEngine(page, async (adapter) => {
      const outcome = await run(adapter, ask());
      expect(failure(outcome)).toMatch(/^(INTERNAL|WORKER_RESET) before_first_token/);
    });
  });
});

describe('waiting before another try', () => {
  it('doubles up to the cap, with full jitter, and ends', () => {
    const ceilings = [1, 2, 3, 4].map((attempt) => retryDelayMs(ENGINE_RETRY, attempt, 0.999_999));
    expect(ceilings).toEqual([99, 199, 399, null]);
    expect(retryDelayMs(ENGINE_RETRY, 1, 0)).toBe(0);
    expect(retryDelayMs({ ...ENGINE_RETRY, attempts: 20 }, 10, 0.999_999)).toBe(1_999);
    expect(retryDelayMs(ENGINE_RETRY, 1, 0.5, 1_000)).toBe(1_000);
  });
});
