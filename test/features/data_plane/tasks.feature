Feature: Tasks
  What is admitted is kept; what is asked twice is done once; what is cancelled stops.

  Background:
    Given a control plane with the pools:
      | pool | slots | replicas | speed | wall ms | idle ms | canary ms |
      | chat | 2     | 2        | 40    |         |         |           |
      | one  | 1     | 1        | 40    |         |         |           |
      | slow | 1     | 1        | 20    | 500     |         |           |
      | mute | 1     | 1        |       |         | 700     | 0         |

  Scenario: A task is admitted, streamed and ended
    When I submit "a" to "chat"
    Then the answer holds:
      | task_id            | {id of a} |
      | queue_position     | 0         |
      | predicted_start_ms | >= 0      |
      | backoff_ms         | >= 0      |
    And the stream of "a" is whole
    And "a" ends
    And the task "a" shows:
      | tokensOut    | 20     |
      | finishReason | length |

  Scenario: The same task sent twice is one task; another body under its id is a conflict
    When I submit "a" to "chat" with:
      | prompt | once |
    And I submit "a" to "chat" with:
      | prompt | once |
    Then "a" ends
    And the task "a" shows:
      | attempts | 1 |
    When I try to submit "a" to "chat" with:
      | prompt | twice |
    Then the answer is 409

  @ORCH-3017 @ORCH-3026 @OC-CTRL-2012
  Scenario: When a cancel is answered the engine has stopped, the slot is free, and nothing more is said
    Given "one" is busy with "a"
    When I cancel "a"
    Then the engine of "one-0" decodes nothing
    And the pool "one" shows at once:
      | slotsFree    | 1 |
      | activeLeases | 0 |
    And the task "a" shows at once:
      | status                  | CANCELED |
      | cancellation.slotFreeAt | any      |
    And "a" says nothing more
    And the stream of "a" has the events "started token end"
    And the stream of "a" has the "end" event with:
      | canceled | true |
    When I submit "b" to "one"
    Then "b" ends

  @ORCH-3017 @OC-CTRL-2012
  Scenario: A task that waits is cancelled too, and twice is the same as once
    Given "one" is busy with "a"
    When I submit "b" to "one"
    And I cancel "b"
    Then the task "b" shows at once:
      | status    | CANCELED |
      | startedAt | none     |
    And the pool "one" shows at once:
      | queue.depth | 0 |
    When I cancel "b"
    Then the task "b" shows at once:
      | status | CANCELED |
    And the stream of "b" has the events "end"
    And the metrics have grown by:
      | tasks_canceled_total | pool_id=one, reason=client | 1 |

  Scenario: A task from the command line
    When I run "run --pool chat --seed 3 --max-tokens 5 'hello there'"
    Then it exits with 0
    And it says "5 tokens"

  Scenario: A task that nobody knows is not found
    When I send POST "/v1/tasks/{id of nobody}/cancel"
    Then the answer is 404
    When I send GET "/v1/tasks/{id of nobody}/stream"
    Then the answer is 404

  @ORCH-3016 @OC-CORE-1022
  Scenario: A task that holds its slot for too long is ended
    When I submit "a" to "slow" with:
      | max_tokens | 2000 |
    Then "a" ends as FAILED with DECODE_TIMEOUT
    And the stream of "a" has the "error" event with:
      | code | DECODE_TIMEOUT |

  @ORCH-3016 @OC-CORE-1022
  Scenario: An engine that falls silent in the middle ends its task
    Given the engine of "mute-0" gets the fault "hang-at-token:3"
    When I submit "a" to "mute"
    Then "a" ends as FAILED with DECODE_TIMEOUT
