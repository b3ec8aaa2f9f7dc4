/** Closed sets. The wire speaks upper case; inside, the values of the core and the database stand as they are. */
import type { ErrorCode as ErrorCodeValue } from '../core/errors.js';
import type { ReplicaState as ReplicaStateValue } from '../core/replica.js';
import { builder } from './builder.js';

export const Engine = builder.enumType('Engine', {
  description: 'A kind of inference engine.',
  values: {
    LLAMACPP: { value: 'llamacpp', description: 'llama.cpp, its llama-server.' },
    VLLM: { value: 'vllm', description: 'vLLM.' },
    TGI: { value: 'tgi', description: 'Text Generation Inference.' },
    TRITON: { value: 'triton', description: 'Triton Inference Server.' },
  } as const,
});

export const Workload = builder.enumType('Workload', {
  description: 'What a task asks an engine for.',
  values: {
    COMPLETION: { value: 'completion', description: 'Text that continues a prompt.' },
    EMBEDDING: { value: 'embedding', description: 'A vector of each input.' },
    RERANK: { value: 'rerank', description: 'The inputs by how well they answer the prompt, best first.' },
  } as const,
});

export const Priority = builder.enumType('Priority', {
  description: 'The lane of the queue that a task waits in.',
  values: {
    INTERACTIVE: { value: 'interactive', description: 'Somebody waits; served before batch.' },
    BATCH: { value: 'batch', description: 'Nobody waits; served when no interactive task does.' },
  } as const,
});

export const Determinism = builder.enumType('Determinism', {
  description: 'What is promised when the engine under a running task is lost.',
  values: {
    STRICT: { value: 'strict', description: 'Run again, compared token by token, and continued where it stopped.' },
    BEST_EFFORT: { value: 'best_effort', description: 'Ended with WORKER_RESET once a token was sent.' },
  } as const,
});

export const FullPolicy = builder.enumType('FullPolicy', {
  description: 'What a full queue does with one more task.',
  values: {
    REJECT: { value: 'reject', description: 'Refuses it.' },
    DROP_LRU: { value: 'drop_lru', description: 'Drops the oldest waiting task for it.' },
    SHED_LOW_PRIORITY: { value: 'shed_low_priority', description: 'Drops a waiting task of lower priority for it.' },
  } as const,
});

export const KvHint = builder.enumType('KvHint', {
  description: 'What the caller knows about the cache of its prompt.',
  values: {
    REUSE: { value: 'reuse', description: 'A replica that served the session before is of use.' },
    COLD: { value: 'cold', description: 'Nothing of the prompt is cached anywhere.' },
  } as const,
});

export const PlacementMode = builder.enumType('PlacementMode', {
  description: 'How much of the placement the caller decides.',
  values: {
    PIN: { value: 'pin', description: 'That pool or none.' },
    PREFER: { value: 'prefer', description: 'The preferred pools first.' },
    AUTO: { value: 'auto', description: 'Any pool that serves the model.' },
  } as const,
});

export const ErrorCode = builder.enumType('ErrorCode', {
  description: 'What went wrong, from the closed set that every face of the system uses.',
  values: {
    ADMISSION_REJECT: { description: 'The queue is full, or the caller comes too often; try again later.' },
    QUEUE_FULL_DROP_LRU: { description: 'Dropped from a full queue for a newer task.' },
    INVALID_PARAMS: { description: 'The request is wrong; sending it again does not help.' },
    POOL_UNREADY: { description: 'The pool has no replica that serves.' },
    POOL_UNAVAILABLE: { description: 'The pool, or the control plane, is not there now.' },
    REPLICA_EXHAUSTED: { description: 'Every slot of every replica stayed taken.' },
    DECODE_TIMEOUT: { description: 'The engine took too long.' },
    WORKER_RESET: { description: 'The engine was lost, and the run could not be continued elsewhere.' },
    INTERNAL: { description: 'A fault of ours; the correlation id names it in the log.' },
    DEADLINE_UNMET: { description: 'There is not enough time left.' },
    MODEL_DEPRECATED: { description: 'The model is not served any more.' },
    UNTRUSTED_ARTIFACT: { description: 'A trust policy refuses the model, or its file is not what its digest says.' },
  } satisfies Record<ErrorCodeValue, { description: string }>,
});

export const TaskStatus = builder.enumType('TaskStatus', {
  description: 'Where a task stands; the last five are final.',
  values: {
    QUEUED: { description: 'Waits for a slot.' },
    LEASED: { description: 'Holds a slot; no token yet.' },
    STREAMING: { description: 'Its engine is producing tokens.' },
    SUCCEEDED: { description: 'Ended by itself.' },
    CANCELED: { description: 'Ended by a cancel.' },
    FAILED: { description: 'Ended by an error.' },
    DROPPED: { description: 'Removed from its queue: that was full, or its pool was given another model.' },
    EXPIRED: { description: 'Its deadline passed while it waited.' },
  } as const,
});

export const ReplicaState = builder.enumType('ReplicaState', {
  description: 'Where the engine process of a replica stands; READY is the only state that serves.',
  values: {
    ABSENT: { description: 'No process.' },
    PROVISIONING: { description: 'What it needs is being fetched.' },
    STARTING: { description: 'The process is up and does not answer yet.' },
    PRELOADING: { description: 'It answers and loads its model.' },
    SELF_TESTING: { description: 'It is asked for a few tokens before it serves.' },
    READY: { description: 'Serving.' },
    DRAINING: { description: 'Finishing what it runs; takes nothing new.' },
    STOPPING: { description: 'Told to exit.' },
    BACKING_OFF: { description: 'Failed; started again after a delay.' },
    QUARANTINED: { description: 'Failed too often; waits for an operator.' },
    FAILED: { description: 'Cannot be started as it is configured.' },
  } satisfies Record<ReplicaStateValue, { description: string }>,
});

export const ReplicaHealth = builder.enumType('ReplicaHealth', {
  description: 'A replica at one glance.',
  values: {
    LOADING: { description: 'Coming up.' },
    READY: { description: 'Serving.' },
    SLOW: { description: 'Serving, below what it did before.' },
    STALLED: { description: 'Its engine answers and gives no tokens.' },
    DEAD: { description: 'No process serves.' },
  } as const,
});

export const BreakerState = builder.enumType('BreakerState', {
  description: 'The circuit breaker of a replica.',
  values: {
    CLOSED: { description: 'Trusted: work goes to it.' },
    OPEN: { description: 'It failed, stalls or owes a sign of life: no work goes to it.' },
    HALF_OPEN: {
      description: 'On trial since its last failure: the next one opens it for longer, a stable run closes it.',
    },
  } as const,
});

export const OperationKind = builder.enumType('OperationKind', {
  description: 'What an operation does to a pool.',
  values: {
    DRAIN: { description: 'Stops giving it work and waits for what runs.' },
    RESUME: { description: 'Gives it work again.' },
    RELOAD: { description: 'Swaps its model.' },
    RESTART: { description: 'Starts an engine anew.' },
  } as const,
});

export const OperationState = builder.enumType('OperationState', {
  description: 'Where an operation stands; the last four are final.',
  values: {
    PENDING: { description: 'Not begun.' },
    RUNNING: { description: 'Under way.' },
    SUCCEEDED: { description: 'Done.' },
    ROLLED_BACK: { description: 'Failed, and what was there before is back.' },
    FAILED: { description: 'Failed.' },
    CANCELED: { description: 'Stopped on request.' },
  } as const,
});
