/**
 * Every answer of a control plane that any test fetches is held against contracts/openapi, and every event of its streams;
 * what breaks the contract is thrown at the test. Set up before each file, so that no test has to think of it.
 */

const CHECKED = Symbol.for('llama-orch.contractFetch');

type Fetch = typeof fetch & { readonly [CHECKED]?: true };

function checked(plain: typeof fetch): Fetch {
  const checkedFetch = async (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => {
    const response = await plain(input, init);
    if (!isOurs(response)) return response;
    // Most files talk to no control plane, and reading the contract takes a while.
    const { checkResponse } = await import('./contract.js');
    const method = (init?.method ?? (input instanceof Request ? input.method : 'GET')).toUpperCase();
    const { pathname, search } = new URL(input instanceof Request ? input.url : input);
    const path = pathname + search;
    const { status, headers } = response;
    if (isStream(response)) {
      await checkResponse(method, path, new Response(null, { status, headers }));
      const body =
        pathname === '/graphql' ? response.body : (response.body?.pipeThrough(await checkedEvents()) ?? null);
      return new Response(body, { status, headers });
    }
    // Read whole, so that nothing hangs on a body that no test looks at.
    const text = await response.text();
    const whole = () => new Response(text === '' ? null : text, { status, headers });
    await checkResponse(method, path, whole());
    return whole();
  };
  return Object.assign(checkedFetch, { [CHECKED]: true } as const);
}

/** Engines, and whatever else a test talks to, do not say this. */
function isOurs(response: Response): boolean {
  return response.headers.has('x-correlation-id');
}

function isStream(response: Response): boolean {
  return response.headers.get('content-type')?.startsWith('text/event-stream') === true;
}

/** Passes bytes on as they are; a wrong event is an error of the body. */
async function checkedEvents(): Promise<TransformStream<Uint8Array, Uint8Array>> {
  const { createParser } = await import('eventsource-parser');
  const { StreamCheck } = await import('./contract.js');
  const check = new StreamCheck();
  const decoder = new TextDecoder();
  const parser = createParser({ onEvent: ({ event = '', data }) => check.event(event, JSON.parse(data)) });
  return new TransformStream({
    transform(chunk, controller) {
      parser.feed(decoder.decode(chunk, { stream: true }));
      controller.enqueue(chunk);
    },
  });
}

// Files that share a worker share this too.
if ((fetch as Fetch)[CHECKED] !== true) globalThis.fetch = checked(fetch);
