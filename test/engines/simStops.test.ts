/** A completion that ends by itself: by end-of-sequence or a stop word, in the words of each engine. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text as bodyOf } from 'node:stream/consumers';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type StopRules, TokenSource } from '../../src/engines/sim/tokens.js';
import { adapterFor, ask, deadline, PROTOCOLS, type Protocol, run, withSim } from '../support/adapters.js';
import type { RunningSim } from '../support/engineSim.js';

const SAMPLING = { temperature: 0.8, topK: 40, topP: 0.95, minP: 0.05 };

function decoded(stop: StopRules, splitCharacters = false, tokens = 60, seed = 1) {
  const plan = { model: 'm', prompt: 'p', seed, sampling: SAMPLING, splitCharacters, stop, tokens };
  const source = new TokenSource(plan);
  const taken = source.take(1_000);
  return { taken, text: taken.map(({ text }) => text).join(''), end: taken.at(-1)?.end, source };
}

const whole = decoded({ words: [], text: 'kept' }).text;

describe('stop words', () => {
  it.each(['removed', 'removed by length'] as const)('%s: the text ends before one of them, and has none', (text) => {
    const places = fc.array(fc.tuple(fc.nat(whole.length - 2), fc.integer({ min: 1, max: 12 })), { minLength: 1 });
    fc.assert(
      fc.property(places, (chosen) => {
        const words = chosen.map(([from, length]) => whole.slice(from, from + length));
        const { text: told, end, source } = decoded({ words, text });
        expect(end?.reason).toBe('word');
        expect(words).toContain(end?.word);
        expect(told).toBe(whole.slice(0, whole.indexOf(end?.word ?? '?')));
        expect(words.filter((word) => told.includes(word))).toEqual([]);
        expect(source.take(1)).toEqual([]);
      }),
    );
  });

  it('that never come change nothing but when the text is told', () => {
    const [first = ''] = whole.trimStart().split(' ');
    for (const splits of [false, true]) {
      const plain = decoded({ words: [], text: 'kept' }, splits).text;
      for (const text of ['kept', 'removed', 'removed by length'] as const) {
        const outcome = decoded({ words: [`${first}#`, '🦙 #'], text }, splits);
        expect([outcome.text, outcome.end]).toEqual([plain, { reason: 'length', word: '' }]);
      }
    }
    const lengths = (text: StopRules['text']) =>
      decoded({ words: [`${first}####`], text }).taken.map((t) => t.text.length);
    expect(lengths('removed')[0]).toBe(1); // the space before what may become the word
    expect(lengths('kept')[0]).toBe(first.length + 1);
    expect(lengths('removed by length')[0]).toBe(0);
  });

  it('kept: the text ends with the word, at the end of a token, but not with the last one', () => {
    const three = decoded({ words: [], text: 'kept' }, false, 3).text;
    const stop = { words: ['#', three.slice(1)], text: 'kept' } as const;
    expect(decoded(stop)).toMatchObject({ text: three, end: { reason: 'word', word: three.slice(1) } });
    expect(decoded(stop, false, 3).end).toEqual({ reason: 'length', word: '' });
    expect(decoded({ words: [three.slice(1, -1)], text: 'kept' }).text).toBe(whole); // ends in a token
  });
});

/** What stands between an adapter and an engine and adds to the bodies of completions. */
async function addingProxy(sim: RunningSim, added: (body: Record<string, unknown>) => object) {
  const server = createServer(async (request, response) => {
    const sent = await bodyOf(request);
    const body = sent === '' ? {} : { body: JSON.stringify({ ...JSON.parse(sent), ...added(JSON.parse(sent)) }) };
    const headers = { 'content-type': 'application/json' };
    const answer = await fetch(`${sim.baseUrl}${request.url}`, { method: request.method ?? 'GET', headers, ...body });
    response.writeHead(answer.status, { 'content-type': answer.headers.get('content-type') ?? '' });
    response.end(await answer.text());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    [Symbol.dispose]: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

const STOP_KEYS: Readonly<Record<Protocol, (word: string, body: Record<string, unknown>) => object>> = {
  llamacpp: (word) => ({ stop: [word] }),
  vllm: (word) => ({ stop: word }),
  tgi: (word, { parameters }) => ({ parameters: { ...(parameters as object), stop: [word] } }),
  triton: (word) => ({ stop_words: word }),
};

describe.each(PROTOCOLS)('%s', (protocol) => {
  it('ends by end-of-sequence, which has no text, when told to', async () => {
    await withSim(protocol, [], async (sim, adapter) => {
      const full = await run(adapter, ask());
      const short = await run(adapter, ask({ maxTokens: 3 }));
      await sim.control('eos-at-token:3');
      const ended = await run(adapter, ask());
      expect(ended).toMatchObject({ error: null, text: short.text });
      // Triton does not tell of it, the others count it.
      expect(ended.end).toMatchObject({ finishReason: 'stop', tokensOut: protocol === 'triton' ? 3 : 4 });
      await sim.control('eos-at-token:0');
      expect(await run(adapter, ask())).toMatchObject({ error: null, text: '', end: { finishReason: 'stop' } });
      await sim.control('eos-at-token:8'); // the length comes first
      expect(await run(adapter, ask())).toMatchObject({ text: full.text, end: { finishReason: 'length' } });
    });
  });

  it('ends by a stop word', async () => {
    await withSim(protocol, [], async (sim, adapter) => {
      const { text } = await run(adapter, ask({ maxTokens: 40 }));
      const word = text.slice((await run(adapter, ask({ maxTokens: 4 }))).text.length).split(' ', 2)[1] ?? '';
      expect(word).not.toBe('');
      using proxy = await addingProxy(sim, (body) => STOP_KEYS[protocol](word, body));
      const stopping = adapterFor(protocol, proxy);
      const ended = await run(stopping, ask({ maxTokens: 40 }));
      await stopping.close();
      expect(ended).toMatchObject({ error: null, end: { finishReason: 'stop' } });
      const isKept = protocol === 'tgi' || protocol === 'triton';
      const at = text.indexOf(word);
      expect(ended.text).toBe(text.slice(0, at + (isKept ? word.length : 0)));
    });
  });
});

async function answerTo(sim: RunningSim, path: string, body: unknown): Promise<string> {
  const headers = { 'content-type': 'application/json' };
  const init = { method: 'POST', headers, body: JSON.stringify(body), signal: deadline() };
  return (await fetch(`${sim.baseUrl}${path}`, init)).text();
}

const payloads = (stream: string) =>
  [...stream.matchAll(/^data: ?(\{.*)$/gm)].map(([, json = '']) => JSON.parse(json) as Record<string, unknown>);

describe('the reason', () => {
  it('of llama-server is a stop type, with the word and whether there was a line break', async () => {
    await withSim('llamacpp', [], async (sim) => {
      const asked = { prompt: 'p', n_predict: 200, seed: 1 };
      const complete = async (over: object) => JSON.parse(await answerTo(sim, '/completion', { ...asked, ...over }));
      const limit = await complete({});
      expect(limit).toMatchObject({ stop_type: 'limit', stopping_word: '', has_new_line: true });
      const [line = ''] = limit.content.split('\n');
      const broken = await complete({ stop: ['', '\n'] });
      expect(broken).toMatchObject({ content: line, stop_type: 'word', stopping_word: '\n', has_new_line: false });
      expect(broken.generation_settings.stop).toEqual(['\n']);
      expect(await complete({ stop: '\n' })).toMatchObject({ stop_type: 'limit' }); // only an array is read
      const stream = payloads(await answerTo(sim, '/completion', { ...asked, stop: ['\n'], stream: true }));
      expect(stream.map(({ content }) => content).join('')).toBe(line);
      expect(stream.at(-1)).toMatchObject({ stop_type: 'word', stopping_word: '\n', content: '' });
      await sim.control('eos-at-token:2');
      const ended = payloads(await answerTo(sim, '/completion', { ...asked, stream: true }));
      expect(ended[2]).toMatchObject({ content: '', tokens: [2], stop: false, tokens_predicted: 3 });
      expect(ended[3]).toMatchObject({ stop_type: 'eos', stopping_word: '', tokens_predicted: 3, truncated: false });
    });
  });

  it('of vLLM is `stop`, with the word', async () => {
    await withSim('vllm', [], async (sim) => {
      const asked = { prompt: 'p', max_tokens: 40, seed: 1, return_token_ids: true };
      const complete = async (over: object) =>
        JSON.parse(await answerTo(sim, '/v1/completions', { ...asked, ...over })).choices?.[0];
      const { text } = await complete({});
      const word: string = text.slice(10, 16);
      const reasons = { finish_reason: 'stop', stop_reason: word };
      expect(await complete({ stop: ['#', word] })).toMatchObject({
        ...reasons,
        text: text.slice(0, text.indexOf(word)),
      });
      const stream = payloads(await answerTo(sim, '/v1/completions', { ...asked, stop: word, stream: true }));
      expect(stream.at(-1)).toMatchObject({ choices: [reasons] });
      await sim.control('eos-at-token:2');
      const ended = await complete({});
      expect(ended).toMatchObject({ finish_reason: 'stop', stop_reason: null });
      expect(ended.token_ids[2]).toBe(2);
      const page = await (await fetch(`${sim.baseUrl}/metrics`)).text();
      expect(page).toMatch(
        /^vllm:request_success_total\{engine="0",finished_reason="stop",model_name="[^"]+"\} 3\.0$/m,
      );
      expect(page).toMatch(
        /^vllm:request_success_total\{engine="0",finished_reason="length",model_name="[^"]+"\} 1\.0$/m,
      );
      expect(await answerTo(sim, '/v1/completions', { ...asked, stop: [''] })).toContain(
        'cannot contain an empty string',
      );
    });
  });

  it('of TGI is `eos_token`, its token a special one that is no part of the text', async () => {
    await withSim('tgi', ['--fault', 'eos-at-token:2'], async (sim) => {
      const asked = { inputs: 'p', parameters: { max_new_tokens: 9, details: true, seed: 1 } };
      const details = { finish_reason: 'eos_token', generated_tokens: 3 };
      const last = payloads(await answerTo(sim, '/generate_stream', asked)).at(-1);
      expect(last).toMatchObject({ index: 3, token: { id: 2, text: '</s>', special: true }, details });
      const answer = JSON.parse(await answerTo(sim, '/generate', asked));
      expect(answer).toMatchObject({ generated_text: last?.generated_text, details });
      expect(answer.generated_text).not.toContain('</s>');
    });
  });
});
