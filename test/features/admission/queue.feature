Feature: Queues
  Each pool has a bounded queue with a lane for each priority.

  Background:
    Given a control plane with the pools:
      | pool    | slots | replicas | speed | queue | policy            | rps  | ctx |
      | line    | 1     | 1        | 40    | 8     |                   |      |     |
      | reject  | 1     | 1        | 40    | 2     | reject            |      |     |
      | lru     | 1     | 1        | 40    | 2     | drop-lru          |      |     |
      | shed    | 1     | 1        | 40    | 2     | shed-low-priority |      |     |
      | limited | 4     | 1        |       | 8     |                   | 0.05 |     |
      | short   | 1     | 1        | 20    |       |                   |      | 512 |

  @ORCH-3004 @OC-CORE-1001 @OC-CORE-1002 @OC-CORE-1003
  Scenario: Interactive tasks go before batch ones, and first come first served among their like
    Given "line" is busy with "holder"
    When I submit "slow1" and "slow2" to "line" with:
      | priority   | batch |
      | max_tokens | 2     |
    And I submit "fast1" and "fast2" to "line" with:
      | max_tokens | 2 |
    Then the pool "line" shows:
      | queue.depth                             | 4 |
      | queue.lanes[priority=INTERACTIVE].depth | 2 |
      | queue.lanes[priority=BATCH].depth       | 2 |
    And the task "slow2" shows:
      | queuePosition | 3 |
    When I cancel "holder"
    Then "fast1", "fast2", "slow1" and "slow2" end
    And "fast1", "fast2", "slow1" and "slow2" started in this order

  @ORCH-3005 @ORCH-2007 @OC-CORE-1004
  Scenario: A full queue that rejects says when to come back, and by which policy
    Given "reject" is busy with "holder"
    When I submit "a" and "b" to "reject"
    And I try to submit "c" to "reject"
    Then the answer is 429
    And the answer has the headers:
      | retry-after  | >= 1 |
      | x-backoff-ms | >= 1 |
    And the answer holds:
      | code           | ADMISSION_REJECT |
      | policy_label   | reject           |
      | retriable      | true             |
      | retry_after_ms | >= 1             |
    And the metrics have grown by:
      | admission_backpressure_events_total | policy=reject           | 1 |
      | tasks_rejected_total                | reason=ADMISSION_REJECT | 1 |

  @ORCH-3005
  Scenario: drop-lru lets the oldest batch task go for a newcomer, and its readers are told
    Given "lru" is busy with "holder"
    When I submit "urgent" to "lru"
    And I submit "old" to "lru" with:
      | priority | batch |
    And I submit "newcomer" to "lru"
    Then "old" ends as DROPPED with QUEUE_FULL_DROP_LRU
    And the stream of "old" has the events "error"
    And the stream of "old" has the "error" event with:
      | code           | QUEUE_FULL_DROP_LRU |
      | retriable      | true                |
      | retry_after_ms | >= 1                |
    And the task "urgent" shows at once:
      | status | QUEUED |

  @ORCH-3005
  Scenario: drop-lru lets the oldest of all go where no batch task waits, and a batch task does not displace it
    Given "lru" is busy with "holder"
    When I submit "old" and "young" to "lru"
    And I try to submit "patient" to "lru" with:
      | priority | batch |
    Then the answer is 429
    And the answer holds:
      | code         | QUEUE_FULL_DROP_LRU |
      | policy_label | drop-lru            |
    When I submit "newcomer" to "lru"
    Then "old" ends as DROPPED with QUEUE_FULL_DROP_LRU
    And the task "young" shows at once:
      | status | QUEUED |
    And the metrics have grown by:
      | tasks_dropped_total                 | pool_id=lru, policy=drop-lru, priority=interactive | 1 |
      | admission_backpressure_events_total | policy=drop-lru                                    | 2 |

  @ORCH-3005
  Scenario: shed-low-priority lets the newest batch task go for an interactive one, and refuses batch
    Given "shed" is busy with "holder"
    When I submit "old" and "young" to "shed" with:
      | priority | batch |
    And I try to submit "another" to "shed" with:
      | priority | batch |
    Then the answer is 429
    And the answer holds:
      | code         | ADMISSION_REJECT  |
      | policy_label | shed-low-priority |
    When I submit "newcomer" to "shed"
    Then "young" ends as DROPPED with QUEUE_FULL_DROP_LRU
    And the stream of "young" has the "error" event with:
      | code | QUEUE_FULL_DROP_LRU |
    And the task "old" shows at once:
      | status | QUEUED |

  @OC-CTRL-2067
  Scenario: However a task ends it leaves a transcript, without its prompt
    Given "shed" is busy with "holder"
    And "short" is busy with "blocker"
    When I submit "served" to "line" with:
      | prompt | a private matter |
    And I submit "late" to "short" with:
      | prompt      | a private matter |
      | deadline_ms | 500              |
    And I submit "waiting" and "dropped" to "shed" with:
      | prompt   | a private matter |
      | priority | batch            |
    And I submit "running" to "reject" with:
      | prompt     | a private matter |
      | max_tokens | 3000             |
    And "running" is streaming
    And I submit "newcomer" to "shed"
    And I cancel "waiting"
    And I cancel "running"
    Then "served" ends
    And "late" ends as EXPIRED with DEADLINE_UNMET
    And "dropped" ends as DROPPED with QUEUE_FULL_DROP_LRU
    And "served" leaves a transcript without "private" and with:
      | status            | SUCCEEDED |
      | prompt.characters | 16        |
      | tokens_out        | 20        |
    And "late" leaves a transcript without "private" and with:
      | status     | EXPIRED        |
      | error.code | DEADLINE_UNMET |
      | tokens_out | 0              |
    And "dropped" leaves a transcript without "private" and with:
      | status     | DROPPED             |
      | error.code | QUEUE_FULL_DROP_LRU |
    And "waiting" leaves a transcript without "private" and with:
      | status | CANCELED |
    And "running" leaves a transcript without "private" and with:
      | status     | CANCELED |
      | tokens_out | > 0      |

  @ORCH-3006
  Scenario: A caller that comes too often is refused before anything is written
    When I submit "a" to "limited"
    And I try to submit "b" to "limited"
    Then the answer is 429
    And the answer has the headers:
      | retry-after  | >= 1 |
      | x-backoff-ms | >= 1 |
    And the answer holds:
      | code           | ADMISSION_REJECT |
      | policy_label   | rate-limit       |
      | retriable      | true             |
      | retry_after_ms | >= 1             |
    And there is no task "b"
    When I try to submit "c" to "limited" with:
      | priority | batch |
    Then the answer is 202

  Scenario: A task that has no seed is given one that follows from its id
    When I submit "a" to "line" with:
      | task_id | 00000000-0000-0000-0000-000000000001 |
    And I ask GraphQL:
      """
      { task(taskId: "00000000-0000-0000-0000-000000000001") { seed } }
      """
    Then the answer holds:
      | data.task.seed | 1691013980 |
