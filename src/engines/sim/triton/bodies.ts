/** The JSON bodies of Triton's HTTP protocol for one ensemble over the TensorRT-LLM backend. Pure. */
import type { SimEngine } from '../engine.js';
import { LAST_VOCABULARY_ID } from '../model.js';
import type { SimToken } from '../tokens.js';
import { INNER_MODEL, INPUTS, type Request } from './request.js';

const VERSION = '2.73.0';
const MODEL_VERSION = '1';

export const errorBody = (message: string): string => JSON.stringify({ error: message });
export const errorEvent = (message: string): string => `data: ${errorBody(message)}\n\n`;

export function serverBody({ config }: SimEngine): Readonly<Record<string, unknown>> {
  const extensions = [
    ...['classification', 'sequence', 'model_repository', 'model_repository(unload_dependents)'],
    ...['schedule_policy', 'model_configuration', 'system_shared_memory', 'cuda_shared_memory'],
    ...['binary_tensor_data', 'parameters', 'statistics', 'trace', 'logging'],
  ];
  return { name: 'triton', version: config.version ?? VERSION, extensions };
}

/** Dimensions come with one for the batch before them. */
export function modelBody({ toldModel }: SimEngine): Readonly<Record<string, unknown>> {
  return {
    name: toldModel,
    versions: [MODEL_VERSION],
    platform: 'ensemble',
    inputs: INPUTS.map(({ name, datatype, size }) => ({ name, datatype, shape: [-1, size] })),
    outputs: [{ name: 'text_output', datatype: 'BYTES', shape: [-1, -1] }],
  };
}

/** Neither the context nor the slots are in it: they are compiled into the engine that the inner model loads. */
export function configBody({ toldModel, config }: SimEngine): Readonly<Record<string, unknown>> {
  const dataType = (datatype: string): string => `TYPE_${datatype === 'BYTES' ? 'STRING' : datatype}`;
  return {
    name: toldModel,
    platform: 'ensemble',
    backend: '',
    version_policy: { latest: { num_versions: 1 } },
    max_batch_size: config.slots,
    input: INPUTS.map(({ name, datatype, size, required }) => ({
      ...{ name, data_type: dataType(datatype), dims: [size], optional: !required },
    })),
    output: [{ name: 'text_output', data_type: 'TYPE_STRING', dims: [-1] }],
    parameters: {},
    ensemble_scheduling: {
      step: ['preprocessing', INNER_MODEL, 'postprocessing'].map((model) => ({ model_name: model, model_version: -1 })),
    },
  };
}

export function indexBody({ toldModel }: SimEngine): readonly unknown[] {
  const names = [toldModel, 'postprocessing', 'preprocessing', INNER_MODEL].sort();
  return names.map((name) => ({ name, version: MODEL_VERSION, state: 'READY' }));
}

export function statsBody(engine: SimEngine): Readonly<Record<string, unknown>> {
  const { finished, abandoned } = engine.completions;
  const ns = Math.round(engine.counters.decodeMs * 1e6);
  return {
    model_stats: [
      {
        name: engine.toldModel,
        version: MODEL_VERSION,
        last_inference: finished === 0 ? 0 : engine.toldMs(Date.now()),
        inference_count: finished,
        execution_count: finished,
        inference_stats: { success: { count: finished, ns }, fail: { count: abandoned, ns: 0 } },
        batch_stats: [],
      },
    ],
  };
}

/** One answer of a model: what comes with every answer, then its outputs, all by name. */
function answerAround(model: string, { id }: Request, outputs: boolean): readonly [head: string, tail: string] {
  const named = `${id === '' ? '' : `"id":${JSON.stringify(id)},`}"model_name":${JSON.stringify(model)}`;
  const head = `{${named},"model_version":"${MODEL_VERSION}"`;
  if (!outputs) return [head, '}'];
  return [`${head},"sequence_end":false,"sequence_id":0,"sequence_start":false,"text_output":`, '}'];
}

export function answerBody(model: string, request: Request, text: string): string {
  const [head, tail] = answerAround(model, request, true);
  return head + JSON.stringify(text) + tail;
}

/** To a request that only stopped another one: an answer without outputs. */
export function stoppedBody(request: Request): string {
  return answerAround(INNER_MODEL, request, false).join('');
}

/** The frames of one completion. They differ only in their text, so what stands around it is made once. */
export function frameWriter(model: string, request: Request): (text: string) => string {
  const [head, tail] = answerAround(model, request, true);
  return (text) => `data: ${head}${JSON.stringify(text)}${tail}\n\n`;
}

/**
 * The text of a token by itself, as the postprocessing model decodes it: half a character becomes U+FFFD, and what the
 * other half completes is not seen.
 */
export function textAlone({ id, text }: SimToken): string {
  return id <= LAST_VOCABULARY_ID ? text : text.replace(/^\p{Emoji_Presentation}?/u, '\u{FFFD}');
}
