/* eslint-disable */
/** Internal type. DO NOT USE DIRECTLY. */
type Exact<T extends { [key: string]: unknown }> = { [K in keyof T]: T[K] };
/** Internal type. DO NOT USE DIRECTLY. */
export type Incremental<T> = T | { [P in keyof T]?: P extends ' $fragmentName' | '__typename' ? T[P] : never };
import type { TypedDocumentNode as DocumentNode } from '@graphql-typed-document-node/core';
/** Which task to cancel. */
export type CancelTaskInput = {
  /** The id its caller gave it. */
  taskId: string;
};

/** What is promised when the engine under a running task is lost. */
export type Determinism =
  /** Ended with WORKER_RESET once a token was sent. */
  | 'BEST_EFFORT'
  /** Run again, compared token by token, and continued where it stopped. */
  | 'STRICT';

/** A kind of inference engine. */
export type Engine =
  /** llama.cpp, its llama-server. */
  | 'LLAMACPP'
  /** Text Generation Inference. */
  | 'TGI'
  /** Triton Inference Server. */
  | 'TRITON'
  /** vLLM. */
  | 'VLLM';

/** What went wrong, from the closed set that every face of the system uses. */
export type ErrorCode =
  /** The queue is full, or the caller comes too often; try again later. */
  | 'ADMISSION_REJECT'
  /** There is not enough time left. */
  | 'DEADLINE_UNMET'
  /** The engine took too long. */
  | 'DECODE_TIMEOUT'
  /** A fault of ours; the correlation id names it in the log. */
  | 'INTERNAL'
  /** The request is wrong; sending it again does not help. */
  | 'INVALID_PARAMS'
  /** The model is not served any more. */
  | 'MODEL_DEPRECATED'
  /** The pool, or the control plane, is not there now. */
  | 'POOL_UNAVAILABLE'
  /** The pool has no replica that serves. */
  | 'POOL_UNREADY'
  /** Dropped from a full queue for a newer task. */
  | 'QUEUE_FULL_DROP_LRU'
  /** Every slot of every replica stayed taken. */
  | 'REPLICA_EXHAUSTED'
  /** A trust policy refuses the model, or its file is not what its digest says. */
  | 'UNTRUSTED_ARTIFACT'
  /** The engine was lost, and the run could not be continued elsewhere. */
  | 'WORKER_RESET';

/** What a full queue does with one more task. */
export type FullPolicy =
  /** Drops the oldest waiting task for it. */
  | 'DROP_LRU'
  /** Refuses it. */
  | 'REJECT'
  /** Drops a waiting task of lower priority for it. */
  | 'SHED_LOW_PRIORITY';

/** What the caller knows about the cache of its prompt. */
export type KvHint =
  /** Nothing of the prompt is cached anywhere. */
  | 'COLD'
  /** A replica that served the session before is of use. */
  | 'REUSE';

/** What the caller wants of the placement. */
export type PlacementInput = {
  /** With PREFER: whether other pools may take it. */
  allowFallback?: boolean;
  /** Names of pools that must not take it. */
  avoidPools?: Array<string> | null | undefined;
  /** How much of it the caller decides. */
  mode?: PlacementMode;
  /** With PIN: name of the pool. */
  pinPoolId?: string | null | undefined;
  /** With PREFER: names of the pools to try first. */
  preferPools?: Array<string> | null | undefined;
  /** Only pools with exactly this device mask. */
  requireDeviceMask?: string | null | undefined;
};

/** How much of the placement the caller decides. */
export type PlacementMode =
  /** Any pool that serves the model. */
  | 'AUTO'
  /** That pool or none. */
  | 'PIN'
  /** The preferred pools first. */
  | 'PREFER';

/** The lane of the queue that a task waits in. */
export type Priority =
  /** Nobody waits; served when no interactive task does. */
  | 'BATCH'
  /** Somebody waits; served before batch. */
  | 'INTERACTIVE';

/** A replica at one glance. */
export type ReplicaHealth =
  /** No process serves. */
  | 'DEAD'
  /** Coming up. */
  | 'LOADING'
  /** Serving. */
  | 'READY'
  /** Serving, below what it did before. */
  | 'SLOW'
  /** Its engine answers and gives no tokens. */
  | 'STALLED';

/** Where the engine process of a replica stands; READY is the only state that serves. */
export type ReplicaState =
  /** No process. */
  | 'ABSENT'
  /** Failed; started again after a delay. */
  | 'BACKING_OFF'
  /** Finishing what it runs; takes nothing new. */
  | 'DRAINING'
  /** Cannot be started as it is configured. */
  | 'FAILED'
  /** It answers and loads its model. */
  | 'PRELOADING'
  /** What it needs is being fetched. */
  | 'PROVISIONING'
  /** Failed too often; waits for an operator. */
  | 'QUARANTINED'
  /** Serving. */
  | 'READY'
  /** It is asked for a few tokens before it serves. */
  | 'SELF_TESTING'
  /** The process is up and does not answer yet. */
  | 'STARTING'
  /** Told to exit. */
  | 'STOPPING';

/** A task. Naming a pool, a prompt and `maxTokens` is enough; the rest has defaults. */
export type SubmitTaskInput = {
  /** Ends the task when the last of its readers, on whichever node and transport, has been gone for so long. Counts from the first reader on; left out: the task outlives its readers. */
  cancelOnDisconnect?: boolean | number | null | undefined;
  /** Tokens of context to reserve; what the pool offers when left out. */
  ctx?: number | null | undefined;
  /** After this the task is worth nothing, ms. */
  deadlineMs?: number;
  /** What is promised when the engine is lost. */
  determinism?: Determinism;
  /** The engine; that of the pool that serves the model when left out. */
  engine?: Engine | null | undefined;
  /** Texts to embed, or documents to rank. A completion without a prompt goes on from them, line by line. */
  inputs?: Array<string> | null | undefined;
  /** What is known of the cache. */
  kvHint?: KvHint | null | undefined;
  /** The most tokens to produce; with the prompt they must fit the context. Required for a completion; others produce none. */
  maxTokens?: number | null | undefined;
  /** The model; the pool's own when a pool is named, required otherwise. */
  modelRef?: string | null | undefined;
  /** What the caller wants of the placement; not together with `pool`. */
  placement?: PlacementInput | null | undefined;
  /** Name of the pool to run on; short for a placement that pins it. */
  pool?: string | null | undefined;
  /** The lane to wait in. */
  priority?: Priority;
  /** The text to go on from, the query to rank for, or the only text to embed; empty when left out. */
  prompt?: string | null | undefined;
  /** Version of the sampler settings that must be in force. */
  samplerProfileVersion?: string | null | undefined;
  /** Seed of the sampler; made from the task id when left out. */
  seed?: string | null | undefined;
  /** The session to belong to; one of its own, named like the task, when left out. */
  sessionId?: string | null | undefined;
  /** Makes the submission idempotent; a new one when it is left out. */
  taskId?: string | null | undefined;
  /** What to do. */
  workload?: Workload;
};

/** What a task asks an engine for. */
export type Workload =
  /** Text that continues a prompt. */
  | 'COMPLETION'
  /** A vector of each input. */
  | 'EMBEDDING'
  /** The inputs by how well they answer the prompt, best first. */
  | 'RERANK';

export type SubmitTaskMutationVariables = Exact<{
  input: SubmitTaskInput;
}>;


export type SubmitTaskMutation = { submitTask:
    | { __typename: 'Backpressure', code: ErrorCode, message: string, field: string | null, retriable: boolean, retryAfterMs: number | null, policyLabel: string | null }
    | { __typename: 'Conflict', code: ErrorCode, message: string, field: string | null, retriable: boolean, retryAfterMs: number | null, policyLabel: string | null }
    | { __typename: 'InvalidParams', code: ErrorCode, message: string, field: string | null, retriable: boolean, retryAfterMs: number | null, policyLabel: string | null }
    | { __typename: 'TaskAccepted', taskId: string, queuePosition: number, predictedStartMs: number }
    | { __typename: 'Unavailable', code: ErrorCode, message: string, field: string | null, retriable: boolean, retryAfterMs: number | null, policyLabel: string | null }
   };

export type CancelTaskMutationVariables = Exact<{
  input: CancelTaskInput;
}>;


export type CancelTaskMutation = { cancelTask:
    | { __typename: 'NotFound', code: ErrorCode, message: string, field: string | null, retriable: boolean, retryAfterMs: number | null }
    | { __typename: 'TaskCanceled', canceled: boolean, slotFree: boolean }
    | { __typename: 'Unavailable', code: ErrorCode, message: string, field: string | null, retriable: boolean, retryAfterMs: number | null }
   };

export type TaskEventsSubscriptionVariables = Exact<{
  taskId: string;
  after?: number | null | undefined;
}>;


export type TaskEventsSubscription = { taskEvents:
    | { __typename: 'TaskEnded', tokensOut: number, decodeTimeMs: number, canceled: boolean, finishReason: string, seq: number, at: string }
    | { __typename: 'TaskFailed', seq: number, at: string, error: { code: ErrorCode, message: string, engine: Engine | null, retriable: boolean, retryAfterMs: number | null } }
    | { __typename: 'TaskMetrics', queueDepth: number, kvWarmth: boolean, seq: number, at: string }
    | { __typename: 'TaskSeam', index: number, cause: string, attempt: number, seq: number, at: string }
    | { __typename: 'TaskStarted', queuePosition: number, predictedStartMs: number, seed: string, seq: number, at: string, replica: { name: string } | null }
    | { __typename: 'TaskTokens', firstIndex: number, tokens: Array<string>, seq: number, at: string }
   };

export type PoolsQueryVariables = Exact<{ [key: string]: never; }>;


export type PoolsQuery = { pools: Array<{ name: string, engine: Engine, modelRef: string, ready: boolean, live: boolean, draining: boolean, simulated: boolean, contextLength: number, activeLeases: number, notReadyBecause: Array<{ code: string, message: string, fix: string | null }>, queue: { depth: number, capacity: number, policy: FullPolicy }, replicas: Array<{ name: string, state: ReplicaState, health: ReplicaHealth, engineVersion: string | null, slotsTotal: number, slotsFree: number, restartCount: number }> }> };


export const SubmitTaskDocument = {"kind":"Document","definitions":[{"kind":"OperationDefinition","operation":"mutation","name":{"kind":"Name","value":"SubmitTask"},"variableDefinitions":[{"kind":"VariableDefinition","variable":{"kind":"Variable","name":{"kind":"Name","value":"input"}},"type":{"kind":"NonNullType","type":{"kind":"NamedType","name":{"kind":"Name","value":"SubmitTaskInput"}}}}],"selectionSet":{"kind":"SelectionSet","selections":[{"kind":"Field","name":{"kind":"Name","value":"submitTask"},"arguments":[{"kind":"Argument","name":{"kind":"Name","value":"input"},"value":{"kind":"Variable","name":{"kind":"Name","value":"input"}}}],"selectionSet":{"kind":"SelectionSet","selections":[{"kind":"Field","name":{"kind":"Name","value":"__typename"}},{"kind":"InlineFragment","typeCondition":{"kind":"NamedType","name":{"kind":"Name","value":"TaskAccepted"}},"selectionSet":{"kind":"SelectionSet","selections":[{"kind":"Field","name":{"kind":"Name","value":"taskId"}},{"kind":"Field","name":{"kind":"Name","value":"queuePosition"}},{"kind":"Field","name":{"kind":"Name","value":"predictedStartMs"}}]}},{"kind":"InlineFragment","typeCondition":{"kind":"NamedType","name":{"kind":"Name","value":"Refusal"}},"selectionSet":{"kind":"SelectionSet","selections":[{"kind":"Field","name":{"kind":"Name","value":"code"}},{"kind":"Field","name":{"kind":"Name","value":"message"}},{"kind":"Field","name":{"kind":"Name","value":"field"}},{"kind":"Field","name":{"kind":"Name","value":"retriable"}},{"kind":"Field","name":{"kind":"Name","value":"retryAfterMs"}},{"kind":"Field","name":{"kind":"Name","value":"policyLabel"}}]}}]}}]}}]} as unknown as DocumentNode<SubmitTaskMutation, SubmitTaskMutationVariables>;
export const CancelTaskDocument = {"kind":"Document","definitions":[{"kind":"OperationDefinition","operation":"mutation","name":{"kind":"Name","value":"CancelTask"},"variableDefinitions":[{"kind":"VariableDefinition","variable":{"kind":"Variable","name":{"kind":"Name","value":"input"}},"type":{"kind":"NonNullType","type":{"kind":"NamedType","name":{"kind":"Name","value":"CancelTaskInput"}}}}],"selectionSet":{"kind":"SelectionSet","selections":[{"kind":"Field","name":{"kind":"Name","value":"cancelTask"},"arguments":[{"kind":"Argument","name":{"kind":"Name","value":"input"},"value":{"kind":"Variable","name":{"kind":"Name","value":"input"}}}],"selectionSet":{"kind":"SelectionSet","selections":[{"kind":"Field","name":{"kind":"Name","value":"__typename"}},{"kind":"InlineFragment","typeCondition":{"kind":"NamedType","name":{"kind":"Name","value":"TaskCanceled"}},"selectionSet":{"kind":"SelectionSet","selections":[{"kind":"Field","name":{"kind":"Name","value":"canceled"}},{"kind":"Field","name":{"kind":"Name","value":"slotFree"}}]}},{"kind":"InlineFragment","typeCondition":{"kind":"NamedType","name":{"kind":"Name","value":"Refusal"}},"selectionSet":{"kind":"SelectionSet","selections":[{"kind":"Field","name":{"kind":"Name","value":"code"}},{"kind":"Field","name":{"kind":"Name","value":"message"}},{"kind":"Field","name":{"kind":"Name","value":"field"}},{"kind":"Field","name":{"kind":"Name","value":"retriable"}},{"kind":"Field","name":{"kind":"Name","value":"retryAfterMs"}}]}}]}}]}}]} as unknown as DocumentNode<CancelTaskMutation, CancelTaskMutationVariables>;
export const TaskEventsDocument = {"kind":"Document","definitions":[{"kind":"OperationDefinition","operation":"subscription","name":{"kind":"Name","value":"TaskEvents"},"variableDefinitions":[{"kind":"VariableDefinition","variable":{"kind":"Variable","name":{"kind":"Name","value":"taskId"}},"type":{"kind":"NonNullType","type":{"kind":"NamedType","name":{"kind":"Name","value":"UUID"}}}},{"kind":"VariableDefinition","variable":{"kind":"Variable","name":{"kind":"Name","value":"after"}},"type":{"kind":"NamedType","name":{"kind":"Name","value":"Int"}}}],"selectionSet":{"kind":"SelectionSet","selections":[{"kind":"Field","name":{"kind":"Name","value":"taskEvents"},"arguments":[{"kind":"Argument","name":{"kind":"Name","value":"taskId"},"value":{"kind":"Variable","name":{"kind":"Name","value":"taskId"}}},{"kind":"Argument","name":{"kind":"Name","value":"after"},"value":{"kind":"Variable","name":{"kind":"Name","value":"after"}}}],"selectionSet":{"kind":"SelectionSet","selections":[{"kind":"Field","name":{"kind":"Name","value":"__typename"}},{"kind":"Field","name":{"kind":"Name","value":"seq"}},{"kind":"Field","name":{"kind":"Name","value":"at"}},{"kind":"InlineFragment","typeCondition":{"kind":"NamedType","name":{"kind":"Name","value":"TaskStarted"}},"selectionSet":{"kind":"SelectionSet","selections":[{"kind":"Field","name":{"kind":"Name","value":"queuePosition"}},{"kind":"Field","name":{"kind":"Name","value":"predictedStartMs"}},{"kind":"Field","name":{"kind":"Name","value":"seed"}},{"kind":"Field","name":{"kind":"Name","value":"replica"},"selectionSet":{"kind":"SelectionSet","selections":[{"kind":"Field","name":{"kind":"Name","value":"name"}}]}}]}},{"kind":"InlineFragment","typeCondition":{"kind":"NamedType","name":{"kind":"Name","value":"TaskTokens"}},"selectionSet":{"kind":"SelectionSet","selections":[{"kind":"Field","name":{"kind":"Name","value":"firstIndex"}},{"kind":"Field","name":{"kind":"Name","value":"tokens"}}]}},{"kind":"InlineFragment","typeCondition":{"kind":"NamedType","name":{"kind":"Name","value":"TaskMetrics"}},"selectionSet":{"kind":"SelectionSet","selections":[{"kind":"Field","name":{"kind":"Name","value":"queueDepth"}},{"kind":"Field","name":{"kind":"Name","value":"kvWarmth"}}]}},{"kind":"InlineFragment","typeCondition":{"kind":"NamedType","name":{"kind":"Name","value":"TaskSeam"}},"selectionSet":{"kind":"SelectionSet","selections":[{"kind":"Field","name":{"kind":"Name","value":"index"}},{"kind":"Field","name":{"kind":"Name","value":"cause"}},{"kind":"Field","name":{"kind":"Name","value":"attempt"}}]}},{"kind":"InlineFragment","typeCondition":{"kind":"NamedType","name":{"kind":"Name","value":"TaskEnded"}},"selectionSet":{"kind":"SelectionSet","selections":[{"kind":"Field","name":{"kind":"Name","value":"tokensOut"}},{"kind":"Field","name":{"kind":"Name","value":"decodeTimeMs"}},{"kind":"Field","name":{"kind":"Name","value":"canceled"}},{"kind":"Field","name":{"kind":"Name","value":"finishReason"}}]}},{"kind":"InlineFragment","typeCondition":{"kind":"NamedType","name":{"kind":"Name","value":"TaskFailed"}},"selectionSet":{"kind":"SelectionSet","selections":[{"kind":"Field","name":{"kind":"Name","value":"error"},"selectionSet":{"kind":"SelectionSet","selections":[{"kind":"Field","name":{"kind":"Name","value":"code"}},{"kind":"Field","name":{"kind":"Name","value":"message"}},{"kind":"Field","name":{"kind":"Name","value":"engine"}},{"kind":"Field","name":{"kind":"Name","value":"retriable"}},{"kind":"Field","name":{"kind":"Name","value":"retryAfterMs"}}]}}]}}]}}]}}]} as unknown as DocumentNode<TaskEventsSubscription, TaskEventsSubscriptionVariables>;
export const PoolsDocument = {"kind":"Document","definitions":[{"kind":"OperationDefinition","operation":"query","name":{"kind":"Name","value":"Pools"},"selectionSet":{"kind":"SelectionSet","selections":[{"kind":"Field","name":{"kind":"Name","value":"pools"},"selectionSet":{"kind":"SelectionSet","selections":[{"kind":"Field","name":{"kind":"Name","value":"name"}},{"kind":"Field","name":{"kind":"Name","value":"engine"}},{"kind":"Field","name":{"kind":"Name","value":"modelRef"}},{"kind":"Field","name":{"kind":"Name","value":"ready"}},{"kind":"Field","name":{"kind":"Name","value":"live"}},{"kind":"Field","name":{"kind":"Name","value":"draining"}},{"kind":"Field","name":{"kind":"Name","value":"simulated"}},{"kind":"Field","name":{"kind":"Name","value":"contextLength"}},{"kind":"Field","name":{"kind":"Name","value":"activeLeases"}},{"kind":"Field","name":{"kind":"Name","value":"notReadyBecause"},"selectionSet":{"kind":"SelectionSet","selections":[{"kind":"Field","name":{"kind":"Name","value":"code"}},{"kind":"Field","name":{"kind":"Name","value":"message"}},{"kind":"Field","name":{"kind":"Name","value":"fix"}}]}},{"kind":"Field","name":{"kind":"Name","value":"queue"},"selectionSet":{"kind":"SelectionSet","selections":[{"kind":"Field","name":{"kind":"Name","value":"depth"}},{"kind":"Field","name":{"kind":"Name","value":"capacity"}},{"kind":"Field","name":{"kind":"Name","value":"policy"}}]}},{"kind":"Field","name":{"kind":"Name","value":"replicas"},"selectionSet":{"kind":"SelectionSet","selections":[{"kind":"Field","name":{"kind":"Name","value":"name"}},{"kind":"Field","name":{"kind":"Name","value":"state"}},{"kind":"Field","name":{"kind":"Name","value":"health"}},{"kind":"Field","name":{"kind":"Name","value":"engineVersion"}},{"kind":"Field","name":{"kind":"Name","value":"slotsTotal"}},{"kind":"Field","name":{"kind":"Name","value":"slotsFree"}},{"kind":"Field","name":{"kind":"Name","value":"restartCount"}}]}}]}}]}}]} as unknown as DocumentNode<PoolsQuery, PoolsQueryVariables>;