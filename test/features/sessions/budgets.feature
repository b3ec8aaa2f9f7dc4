Feature: Budgets of sessions

  Background:
    Given the section "budgets":
      """
      { tokens: 200, time_ms: 60000, cost: 0.2, price_per_1k_tokens: 1 }
      """
    And a control plane with the pools:
      | pool | slots | replicas | speed |
      | chat | 2     | 1        | 40    |

  @ORCH-3099 @OC-CORE-1024
  Scenario: What a task may spend is reserved and told, and what it did not use comes back with its end
    When I submit "a" to "chat" with:
      | session    | talk |
      | max_tokens | 150  |
    Then the answer has the headers:
      | x-budget-tokens-remaining  | < 50  |
      | x-budget-time-remaining-ms | 55000 |
      | x-budget-cost-remaining    | < 0.05 |
    And "a" is streaming
    When I try to submit "b" to "chat" with:
      | session    | talk |
      | max_tokens | 100  |
    Then the answer is 429
    And the answer has the headers:
      | retry-after  | >= 1 |
      | x-backoff-ms | >= 1 |
    And the answer holds:
      | code         | ADMISSION_REJECT |
      | policy_label | session-budget   |
      | retriable    | true             |
      | field        | session_id       |
    And there is no task "b"
    When I cancel "a"
    Then the stream of "a" has a "metrics" event with:
      | tokens_budget_remaining  | < 50   |
      | time_budget_remaining_ms | 55000  |
      | cost_budget_remaining    | < 0.05 |
    And the session "talk" shows:
      | turns                    | 1       |
      | tokens_budget_remaining  | > 120   |
      | time_budget_remaining_ms | > 55000 |
      | cost_budget_remaining    | > 0.12  |
    When I submit "c" to "chat" with:
      | session    | talk |
      | max_tokens | 100  |
    Then the answer has the headers:
      | x-budget-tokens-remaining | < 100 |
    And the session "talk" shows:
      | turns | 2 |

  @ORCH-3099 @OC-CORE-1024
  Scenario: A task is charged for what it has used, once
    When I submit "a" to "chat" with:
      | session    | talk |
      | max_tokens | 20   |
    Then "a" ends
    And the task "a" shows:
      | tokensIn  | 9  |
      | tokensOut | 20 |
    And the session "talk" shows:
      | tokens_budget_remaining  | 171     |
      | cost_budget_remaining    | 0.171   |
      | time_budget_remaining_ms | < 60000 |

  @ORCH-3099 @OC-CORE-1023 @OC-CORE-1024
  Scenario: A task that its session can never pay for is refused before it is queued
    When I try to submit "a" to "chat" with:
      | session    | talk |
      | max_tokens | 500  |
    Then the answer is 400
    And the answer holds:
      | code      | INVALID_PARAMS |
      | field     | max_tokens     |
      | message   | /200 tokens/   |
      | retriable | false          |
    And there is no task "a"
    And the session "talk" is gone
