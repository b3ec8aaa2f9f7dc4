/* eslint-disable */
import * as types from './graphql.js';
import type { TypedDocumentNode as DocumentNode } from '@graphql-typed-document-node/core';

/**
 * Map of all GraphQL operations in the project.
 *
 * This map has several performance disadvantages:
 * 1. It is not tree-shakeable, so it will include all operations in the project.
 * 2. It is not minifiable, so the string of a GraphQL query will be multiple times inside the bundle.
 * 3. It does not support dead code elimination, so it will add unused operations.
 *
 * Therefore it is highly recommended to use the babel or swc plugin for production.
 * Learn more about it here: https://the-guild.dev/graphql/codegen/plugins/presets/preset-client#reducing-bundle-size
 */
type Documents = {
    "\n  mutation SubmitTask($input: SubmitTaskInput!) {\n    submitTask(input: $input) {\n      __typename\n      ... on TaskAccepted {\n        taskId\n        queuePosition\n        predictedStartMs\n      }\n      ... on Refusal {\n        code\n        message\n        field\n        retriable\n        retryAfterMs\n        policyLabel\n      }\n    }\n  }\n": typeof types.SubmitTaskDocument,
    "\n  mutation CancelTask($input: CancelTaskInput!) {\n    cancelTask(input: $input) {\n      __typename\n      ... on TaskCanceled {\n        canceled\n        slotFree\n      }\n      ... on Refusal {\n        code\n        message\n        field\n        retriable\n        retryAfterMs\n      }\n    }\n  }\n": typeof types.CancelTaskDocument,
    "\n  subscription TaskEvents($taskId: UUID!, $after: Int) {\n    taskEvents(taskId: $taskId, after: $after) {\n      __typename\n      seq\n      at\n      ... on TaskStarted {\n        queuePosition\n        predictedStartMs\n        seed\n        replica {\n          name\n        }\n      }\n      ... on TaskTokens {\n        firstIndex\n        tokens\n      }\n      ... on TaskMetrics {\n        queueDepth\n        kvWarmth\n      }\n      ... on TaskSeam {\n        index\n        cause\n        attempt\n      }\n      ... on TaskEnded {\n        tokensOut\n        decodeTimeMs\n        canceled\n        finishReason\n      }\n      ... on TaskFailed {\n        error {\n          code\n          message\n          engine\n          retriable\n          retryAfterMs\n        }\n      }\n    }\n  }\n": typeof types.TaskEventsDocument,
    "\n  query Pools {\n    pools {\n      name\n      engine\n      modelRef\n      ready\n      live\n      draining\n      simulated\n      contextLength\n      activeLeases\n      notReadyBecause {\n        code\n        message\n        fix\n      }\n      queue {\n        depth\n        capacity\n        policy\n      }\n      replicas {\n        name\n        state\n        health\n        engineVersion\n        slotsTotal\n        slotsFree\n        restartCount\n      }\n    }\n  }\n": typeof types.PoolsDocument,
};
const documents: Documents = {
    "\n  mutation SubmitTask($input: SubmitTaskInput!) {\n    submitTask(input: $input) {\n      __typename\n      ... on TaskAccepted {\n        taskId\n        queuePosition\n        predictedStartMs\n      }\n      ... on Refusal {\n        code\n        message\n        field\n        retriable\n        retryAfterMs\n        policyLabel\n      }\n    }\n  }\n": types.SubmitTaskDocument,
    "\n  mutation CancelTask($input: CancelTaskInput!) {\n    cancelTask(input: $input) {\n      __typename\n      ... on TaskCanceled {\n        canceled\n        slotFree\n      }\n      ... on Refusal {\n        code\n        message\n        field\n        retriable\n        retryAfterMs\n      }\n    }\n  }\n": types.CancelTaskDocument,
    "\n  subscription TaskEvents($taskId: UUID!, $after: Int) {\n    taskEvents(taskId: $taskId, after: $after) {\n      __typename\n      seq\n      at\n      ... on TaskStarted {\n        queuePosition\n        predictedStartMs\n        seed\n        replica {\n          name\n        }\n      }\n      ... on TaskTokens {\n        firstIndex\n        tokens\n      }\n      ... on TaskMetrics {\n        queueDepth\n        kvWarmth\n      }\n      ... on TaskSeam {\n        index\n        cause\n        attempt\n      }\n      ... on TaskEnded {\n        tokensOut\n        decodeTimeMs\n        canceled\n        finishReason\n      }\n      ... on TaskFailed {\n        error {\n          code\n          message\n          engine\n          retriable\n          retryAfterMs\n        }\n      }\n    }\n  }\n": types.TaskEventsDocument,
    "\n  query Pools {\n    pools {\n      name\n      engine\n      modelRef\n      ready\n      live\n      draining\n      simulated\n      contextLength\n      activeLeases\n      notReadyBecause {\n        code\n        message\n        fix\n      }\n      queue {\n        depth\n        capacity\n        policy\n      }\n      replicas {\n        name\n        state\n        health\n        engineVersion\n        slotsTotal\n        slotsFree\n        restartCount\n      }\n    }\n  }\n": types.PoolsDocument,
};

/**
 * The graphql function is used to parse GraphQL queries into a document that can be used by GraphQL clients.
 *
 *
 * @example
 * ```ts
 * const query = graphql(`query GetUser($id: ID!) { user(id: $id) { name } }`);
 * ```
 *
 * The query argument is unknown!
 * Please regenerate the types.
 */
export function graphql(source: string): unknown;

/**
 * The graphql function is used to parse GraphQL queries into a document that can be used by GraphQL clients.
 */
export function graphql(source: "\n  mutation SubmitTask($input: SubmitTaskInput!) {\n    submitTask(input: $input) {\n      __typename\n      ... on TaskAccepted {\n        taskId\n        queuePosition\n        predictedStartMs\n      }\n      ... on Refusal {\n        code\n        message\n        field\n        retriable\n        retryAfterMs\n        policyLabel\n      }\n    }\n  }\n"): (typeof documents)["\n  mutation SubmitTask($input: SubmitTaskInput!) {\n    submitTask(input: $input) {\n      __typename\n      ... on TaskAccepted {\n        taskId\n        queuePosition\n        predictedStartMs\n      }\n      ... on Refusal {\n        code\n        message\n        field\n        retriable\n        retryAfterMs\n        policyLabel\n      }\n    }\n  }\n"];
/**
 * The graphql function is used to parse GraphQL queries into a document that can be used by GraphQL clients.
 */
export function graphql(source: "\n  mutation CancelTask($input: CancelTaskInput!) {\n    cancelTask(input: $input) {\n      __typename\n      ... on TaskCanceled {\n        canceled\n        slotFree\n      }\n      ... on Refusal {\n        code\n        message\n        field\n        retriable\n        retryAfterMs\n      }\n    }\n  }\n"): (typeof documents)["\n  mutation CancelTask($input: CancelTaskInput!) {\n    cancelTask(input: $input) {\n      __typename\n      ... on TaskCanceled {\n        canceled\n        slotFree\n      }\n      ... on Refusal {\n        code\n        message\n        field\n        retriable\n        retryAfterMs\n      }\n    }\n  }\n"];
/**
 * The graphql function is used to parse GraphQL queries into a document that can be used by GraphQL clients.
 */
export function graphql(source: "\n  subscription TaskEvents($taskId: UUID!, $after: Int) {\n    taskEvents(taskId: $taskId, after: $after) {\n      __typename\n      seq\n      at\n      ... on TaskStarted {\n        queuePosition\n        predictedStartMs\n        seed\n        replica {\n          name\n        }\n      }\n      ... on TaskTokens {\n        firstIndex\n        tokens\n      }\n      ... on TaskMetrics {\n        queueDepth\n        kvWarmth\n      }\n      ... on TaskSeam {\n        index\n        cause\n        attempt\n      }\n      ... on TaskEnded {\n        tokensOut\n        decodeTimeMs\n        canceled\n        finishReason\n      }\n      ... on TaskFailed {\n        error {\n          code\n          message\n          engine\n          retriable\n          retryAfterMs\n        }\n      }\n    }\n  }\n"): (typeof documents)["\n  subscription TaskEvents($taskId: UUID!, $after: Int) {\n    taskEvents(taskId: $taskId, after: $after) {\n      __typename\n      seq\n      at\n      ... on TaskStarted {\n        queuePosition\n        predictedStartMs\n        seed\n        replica {\n          name\n        }\n      }\n      ... on TaskTokens {\n        firstIndex\n        tokens\n      }\n      ... on TaskMetrics {\n        queueDepth\n        kvWarmth\n      }\n      ... on TaskSeam {\n        index\n        cause\n        attempt\n      }\n      ... on TaskEnded {\n        tokensOut\n        decodeTimeMs\n        canceled\n        finishReason\n      }\n      ... on TaskFailed {\n        error {\n          code\n          message\n          engine\n          retriable\n          retryAfterMs\n        }\n      }\n    }\n  }\n"];
/**
 * The graphql function is used to parse GraphQL queries into a document that can be used by GraphQL clients.
 */
export function graphql(source: "\n  query Pools {\n    pools {\n      name\n      engine\n      modelRef\n      ready\n      live\n      draining\n      simulated\n      contextLength\n      activeLeases\n      notReadyBecause {\n        code\n        message\n        fix\n      }\n      queue {\n        depth\n        capacity\n        policy\n      }\n      replicas {\n        name\n        state\n        health\n        engineVersion\n        slotsTotal\n        slotsFree\n        restartCount\n      }\n    }\n  }\n"): (typeof documents)["\n  query Pools {\n    pools {\n      name\n      engine\n      modelRef\n      ready\n      live\n      draining\n      simulated\n      contextLength\n      activeLeases\n      notReadyBecause {\n        code\n        message\n        fix\n      }\n      queue {\n        depth\n        capacity\n        policy\n      }\n      replicas {\n        name\n        state\n        health\n        engineVersion\n        slotsTotal\n        slotsFree\n        restartCount\n      }\n    }\n  }\n"];

export function graphql(source: string) {
  return (documents as any)[source] ?? {};
}

export type DocumentType<TDocumentNode extends DocumentNode<any, any>> = TDocumentNode extends DocumentNode<  infer TType,  any>  ? TType  : never;