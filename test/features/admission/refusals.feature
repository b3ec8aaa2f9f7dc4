Feature: What is refused before it is queued
  A task that cannot succeed is refused with the field that is wrong, and nothing is cut short.

  Background:
    Given a control plane with the pools:
      | pool    | slots | replicas | speed | queue | policy            | rps  | ctx |
      | line    | 1     | 1        | 40    | 8     |                   |      |     |
      | reject  | 1     | 1        | 40    | 2     | reject            |      |     |
      | lru     | 1     | 1        | 40    | 2     | drop-lru          |      |     |
      | shed    | 1     | 1        | 40    | 2     | shed-low-priority |      |     |
      | limited | 4     | 1        |       | 8     |                   | 0.05 |     |
      | short   | 1     | 1        | 20    |       |                   |      | 512 |

  @ORCH-3014 @OC-CORE-1020
  Scenario: A context above what the pool offers
    When I try to submit "a" to "short" with:
      | ctx | 4096 |
    Then the answer is 400
    And the answer holds:
      | code      | INVALID_PARAMS |
      | field     | ctx            |
      | retriable | false          |
    And there is no task "a"

  @ORCH-3014 @ORCH-3015 @OC-CORE-1020 @OC-CORE-1021
  Scenario: A prompt that leaves too little of the context for its answer
    When I try to submit "a" to "short" with:
      | max_tokens | 510 |
      | prompt     | one two three four five six seven eight nine ten eleven twelve |
    Then the answer is 400
    And the answer holds:
      | code    | INVALID_PARAMS        |
      | message | /510.*512\|512.*510/  |
    And there is no task "a"

  @ORCH-3016
  Scenario: A model that nobody serves
    When I try to submit "a" to "short" with:
      | model_ref | somebody-elses-70b |
    Then the answer is 400
    And the answer holds:
      | code    | INVALID_PARAMS       |
      | message | /somebody-elses-70b/ |
    And there is no task "a"

  @ORCH-3016 @OC-CORE-1023
  Scenario: A deadline that the tasks ahead leave no time for is refused before the task is queued
    When I submit "s1", "s2", "s3", "s4" and "s5" to "line" with:
      | max_tokens | 10 |
    Then "s1", "s2", "s3", "s4" and "s5" end
    Given "line" is busy with "holder"
    When I submit "w1", "w2", "w3", "w4", "w5" and "w6" to "line"
    And I try to submit "hasty" to "line" with:
      | deadline_ms | 100 |
    Then the answer is 400
    And the answer holds:
      | code           | DEADLINE_UNMET    |
      | field          | deadline_ms       |
      | message        | /tasks ahead/     |
      | retriable      | true              |
      | retry_after_ms | >= 1              |
    And there is no task "hasty"

  @ORCH-3016 @OC-CORE-1023
  Scenario: A deadline that passes while the task waits ends it, and no engine sees it
    Given "short" is busy with "holder"
    When I submit "a" to "short" with:
      | deadline_ms | 500 |
    Then "a" ends as EXPIRED with DEADLINE_UNMET
    And the task "a" shows:
      | attempts  | 0    |
      | startedAt | none |
    And the stream of "a" has the events "error"

  Scenario: Bodies that are no task are refused by the field that is wrong
    When I try to submit "a" to "short" with:
      | task_id | not a uuid |
    Then the answer is 400
    And the answer holds:
      | code  | INVALID_PARAMS |
      | field | task_id        |
