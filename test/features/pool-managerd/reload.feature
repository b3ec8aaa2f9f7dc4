Feature: Reload
  A pool gets another model as a whole, or keeps the one it has.

  Background:
    Given a control plane with the pools:
      | pool | slots | replicas | speed |
      | chat | 2     | 1        | 50    |

  @ORCH-3031 @OC-CTRL-2003
  Scenario: To the model that is served already nothing is done, and that succeeds
    When I reload "chat" to "chat-7b" within 5000 ms
    Then the operation ends as SUCCEEDED
    And the operation shows:
      | outcome | /already/ |
    And the pool "chat" shows:
      | modelRef | chat-7b |
      | ready    | true    |

  @ORCH-3031 @OC-CTRL-2003 @HME-031 @long
  Scenario: A reload switches the model in less than 10 s and drops no stream
    When I submit "a" to "chat" with:
      | max_tokens | 120 |
    And "a" is streaming
    And I reload "chat" to "second-7b" within 20000 ms
    Then the operation ends as SUCCEEDED
    And the operation took less than 10 s
    And the stream of "a" is whole
    And "a" ends
    And the task "a" shows:
      | attempts        | 1       |
      | receipt.modelId | chat-7b |
    And the pool "chat" shows:
      | modelRef | second-7b |
      | ready    | true      |
    When I submit "b" to "chat"
    Then "b" ends
    And the task "b" shows:
      | receipt.modelId | second-7b |
    And the metrics have grown by:
      | reload_success_total            | pool_id=chat | 1 |
      | streams_dropped_by_reload_total | pool_id=chat | 0 |
    When I reload "chat" to "chat-7b" within 20000 ms
    Then the operation ends as SUCCEEDED

  @ORCH-3031 @OC-CTRL-2003
  Scenario: A model that does not start leaves the old one serving
    When I reload "chat" to "-bad" within 5000 ms
    Then the operation ends as ROLLED_BACK
    And the operation shows:
      | outcome                     | /^still serving /  |
      | error.message               | any                |
      | steps[name=roll_back].state | SUCCEEDED          |
    And the pool "chat" shows:
      | modelRef | chat-7b    |
      | ready    | true       |
    And the metrics have grown by:
      | reload_failure_total | pool_id=chat | 1 |
    When I submit "c" to "chat"
    Then "c" ends

  @ORCH-3031 @ORCH-3038
  Scenario: Tasks that outlive the deadline make a reload roll back
    Given "chat" is busy with "long"
    When I reload "chat" to "third-7b" within 300 ms
    Then the operation ends as ROLLED_BACK
    And the operation shows:
      | error.code | DRAIN_TIMEOUT |
    And the pool "chat" shows:
      | ready      | true  |
      | draining   | false |
    And the task "long" shows:
      | status | STREAMING |
