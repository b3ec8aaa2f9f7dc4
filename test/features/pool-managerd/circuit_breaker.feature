Feature: Circuit breaker

  @ORCH-3038 @OC-POOL-3010 @own @long
  Scenario: An engine that answers and does not decode gets nothing more, is replaced, and is tried again
    Given a control plane with the pools:
      | pool | slots | replicas | devices | idle ms |
      | chat | 2     | 2        | 0, 1    | 12000   |
    And the replica "chat-0" shows:
      | state   | READY  |
      | breaker | CLOSED |
    When I submit "before" to "chat"
    Then "before" ends
    And the task "before" shows:
      | replica.name | chat-0 |
    When the engine of "chat-0" gets the fault "hang-at-token:1"
    And I submit "stuck" to "chat"
    Then the replica "chat-0" shows:
      | breaker   | OPEN    |
      | health    | STALLED |
      | slotsFree | > 0     |
    When I submit "b" and "c" to "chat"
    Then "b" and "c" end
    And the task "b" shows:
      | replica.name | chat-1 |
    And the task "c" shows:
      | replica.name | chat-1 |
    And the replica "chat-1" shows:
      | breaker | CLOSED |
    And the metrics come to hold:
      | replica_breaker_state | replica_id=chat-0 | 2 |
    And "stuck" ends as FAILED with DECODE_TIMEOUT
    And the replica "chat-0" shows:
      | state           | READY          |
      | breaker         | HALF_OPEN      |
      | lastCrash.fault | /^(ENGINE_STALLED\|CANCEL_IGNORED)$/ |
    And the metrics come to hold:
      | replica_breaker_state | replica_id=chat-0 | 1 |
    And the pool "chat" has told:
      | replica_breaker | /is OPEN, was CLOSED/ |
      | replica_crashed | any                   |
      | replica_breaker | /is HALF_OPEN, was /  |
    When I submit "trial" to "chat"
    Then "trial" ends
    And the task "trial" shows:
      | replica.name | chat-0 |
