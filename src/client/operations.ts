/** The operations of the command line client, typed by the schema. */
import { graphql } from './gql/gql.js';

export const submitTaskDocument = graphql(/* GraphQL */ `
  mutation SubmitTask($input: SubmitTaskInput!) {
    submitTask(input: $input) {
      __typename
      ... on TaskAccepted {
        taskId
        queuePosition
        predictedStartMs
      }
      ... on Refusal {
        code
        message
        field
        retriable
        retryAfterMs
        policyLabel
      }
    }
  }
`);

export const cancelTaskDocument = graphql(/* GraphQL */ `
  mutation CancelTask($input: CancelTaskInput!) {
    cancelTask(input: $input) {
      __typename
      ... on TaskCanceled {
        canceled
        slotFree
      }
      ... on Refusal {
        code
        message
        field
        retriable
        retryAfterMs
      }
    }
  }
`);

export const taskEventsDocument = graphql(/* GraphQL */ `
  subscription TaskEvents($taskId: UUID!, $after: Int) {
    taskEvents(taskId: $taskId, after: $after) {
      __typename
      seq
      at
      ... on TaskStarted {
        queuePosition
        predictedStartMs
        seed
        replica {
          name
        }
      }
      ... on TaskTokens {
        firstIndex
        tokens
      }
      ... on TaskMetrics {
        queueDepth
        kvWarmth
      }
      ... on TaskSeam {
        index
        cause
        attempt
      }
      ... on TaskEnded {
        tokensOut
        decodeTimeMs
        canceled
        finishReason
      }
      ... on TaskFailed {
        error {
          code
          message
          engine
          retriable
          retryAfterMs
        }
      }
    }
  }
`);

export const poolsDocument = graphql(/* GraphQL */ `
  query Pools {
    pools {
      name
      engine
      modelRef
      ready
      live
      draining
      simulated
      contextLength
      activeLeases
      notReadyBecause {
        code
        message
        fix
      }
      queue {
        depth
        capacity
        policy
      }
      replicas {
        name
        state
        health
        engineVersion
        slotsTotal
        slotsFree
        restartCount
      }
    }
  }
`);
