/** The adapter against what a real llama-server once answered, byte by byte and at once. */
import { describe, expect, it } from 'vitest';
import type { EngineAdapter } from '../../src/engines/adapter.js';
import { createLlamaCppAdapter } from '../../src/engines/llamacpp/adapter.js';
import { ask, deadline, failure, run } from '../support/adapters.js';
import { type ReplayServer, readCapture, startReplay } from '../support/replay.js';

const GOOD = {
  'GET /health': readCapture('llamacpp/health'),
  'GET /props': readCapture('llamacpp/props'),
  'GET /slots': readCapture('llamacpp/slots'),
  'GET /metrics': readCapture('llamacpp/metrics'),
  'POST /tokenize': readCapture('llamacpp/tokenize'),
  'POST /completion': readCapture('llamacpp/completion-stream-greedy'),
  'POST /v1/embeddings': readCapture('llamacpp/embeddings-disabled'),
};

async function replay(
  answers: Parameters<typeof startReplay>[0],
  pieceBytes: number,
  test: (adapter: EngineAdapter, server: ReplayServer) => Promise<void>,
): Promise<void> {
  await using server = await startReplay(answers, pieceBytes);
  const adapter = createLlamaCppAdapter({ baseUrl: server.baseUrl, apiKey: 'key-1' });
  try {
    await test(adapter, server);
  } finally {
    await adapter.close();
  }
}

describe.each([1, 7, 100_000])('captured answers in pieces of %i bytes', (pieceBytes) => {
  it('tell health, properties, counts, slots and metrics', async () => {
    await replay(GOOD, pieceBytes, async (adapter) => {
      expect(await adapter.health(deadline())).toMatchObject({ state: 'ready' });
      expect(await adapter.props(deadline())).toEqual({
        ...{ version: expect.stringContaining('11669'), modelId: 'tiny.gguf', modelDigest: null },
        ...{ contextLength: 1024, slotsTotal: 2, slotsBusy: 0 },
      });
      expect(await adapter.countTokens('Hello lora', deadline())).toBe(12);
      expect(await adapter.metrics(deadline())).toEqual({
        ...{ running: 0, waiting: 0, kvUsage: null, tokensInTotal: 55, tokensOutTotal: 24 },
      });
      const { outcome } = await adapter.cancel({ requestId: 'none', slot: 1 }, deadline());
      expect(outcome).toBe('slot_free');
    });
  });

  it('stream', async () => {
    await replay(GOOD, pieceBytes, async (adapter) => {
      const { text, tokens, end, error } = await run(adapter, ask());
      expect(error).toBeNull();
      expect([text, tokens]).toEqual([' kino kive nodo nove talo pemi', 6]);
      expect(end).toMatchObject({ finishReason: 'length', tokensIn: 12, tokensOut: 6 });
    });
  });

  it.each([
    ['error-bad-json', 'INVALID_PARAMS before_first_token lost=false'],
    ['error-context-overflow', 'INVALID_PARAMS before_first_token lost=false'],
    ['error-missing-prompt', 'INVALID_PARAMS before_first_token lost=false'],
    ['notfound', 'INTERNAL before_first_token lost=false'],
  ])('%s is %s', async (name, expected) => {
    const answers = { 'POST /completion': readCapture(`llamacpp/${name}`) };
    await replay(answers, pieceBytes, async (adapter) => {
      expect(failure(await run(adapter, ask()))).toBe(expected);
    });
  });
});

describe('a request', () => {
  it('carries the key and nothing that would make the server keep a conversation', async () => {
    await replay(GOOD, 100_000, async (adapter, { requests }) => {
      await run(adapter, ask());
      const [, ...headers] = requests[0]?.split('\r\n') ?? [];
      const names = headers.map((header) => header.split(':')[0]?.toLowerCase());
      expect(names.sort()).toEqual(['authorization', 'connection', 'content-length', 'content-type', 'host']);
    });
  });

  it('for embeddings that are off is refused as what this engine does not offer', async () => {
    await replay(GOOD, 100_000, async (adapter) => {
      await expect(adapter.embed({ requestId: 'e', inputs: ['a'] }, deadline())).rejects.toMatchObject({
        code: 'INVALID_PARAMS',
        retriable: false,
      });
    });
  });
});
