Feature: Restart and backoff

  Background:
    Given a control plane with the pools:
      | pool | slots | replicas | speed |
      | chat | 1     | 2        | 40    |

  @ORCH-3508 @long
  Scenario: A restart on request gives one replica a new engine, and its task goes on
    Given "chat" is busy with "a"
    Then the task "a" shows:
      | replica.name | chat-0 |
    When I restart the replica "chat-0"
    Then the operation ends as SUCCEEDED
    And the operation shows:
      | kind          | RESTART |
      | steps.*.state | /^SUCCEEDED(, (SUCCEEDED\|SKIPPED))*$/ |
    And the task "a" shows:
      | attempts | 2         |
      | status   | STREAMING |
    And "a" goes on streaming
    When I cancel "a"
    Then the stream of "a" is whole

  @ORCH-3040 @OC-POOL-3030 @long
  Scenario: Each restart in a row waits longer, and is counted
    When the engine of "chat-1" is killed
    Then the replica "chat-1" shows:
      | state | READY |
    When the engine of "chat-1" is killed
    Then the pool "chat" has told:
      | replica_restart | /^restart 1 in (1[2-9]\d\|2[0-4]\d\|250) ms/         |
      | replica_restart | /^restart 2 in (2[5-9]\d\|[34]\d\d\|500) ms/         |
    And the replica "chat-1" shows:
      | state        | READY |
      | restartCount | 2     |
    And the metrics have grown by:
      | replica_restarts_total | replica_id=chat-1 | 2 |

  @ORCH-3508 @long
  Scenario: The lines that an engine wrote are kept over its death
    When the engine of "chat-1" is killed
    Then the replica "chat-1" shows:
      | state | READY |
    When I ask GraphQL:
      """
      { pool(name: "chat") { replicas { name logs(lines: 1000) { text } } } }
      """
    Then the answer holds:
      | data.pool.replicas[name=chat-1].logs.*.text | /loading model.*loading model/ |
