Feature: Circuit breaker

  @ORCH-3038 @OC-POOL-3010 @own
  Scenario: An engine that answers and does not decode gets nothing more, is replaced, and is on trial
    Given a control plane with the pools:
      | pool | slots | replicas | idle ms | canary ms |
      | chat | 1     | 1        | 1000    | 200       |
    Then the replica "chat-0" shows:
      | breaker | CLOSED |
    When the engine of "chat-0" gets the fault "hang-at-token:0"
    Then the pool "chat" has told:
      | replica_breaker | /is OPEN, was CLOSED/    |
      | replica_breaker | /is HALF_OPEN, was OPEN/ |
    And the pool "chat" has told:
      | replica_crashed | any |
    And the replica "chat-0" shows:
      | state           | READY          |
      | breaker         | HALF_OPEN      |
      | lastCrash.fault | ENGINE_STALLED |
    And the metrics come to hold:
      | replica_breaker_state | replica_id=chat-0 | any |
