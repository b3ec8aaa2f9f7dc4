Feature: Budgets of sessions

  Background:
    Given the section "budgets":
      """
      tokens: 200
      """
    And a control plane with the pools:
      | pool | slots | replicas |
      | chat | 2     | 1        |

  @ORCH-3099 @OC-CORE-1024
  Scenario: What a task may spend is reserved, told, and settled with its end
    When I submit "a" to "chat" with:
      | session    | talk |
      | max_tokens | 100  |
    Then the answer has the headers:
      | x-budget-tokens-remaining | < 100 |
    And "a" ends
    And GET "/v1/sessions/{id of session talk}" comes to hold:
      | turns                   | 1                    |
      | tokens_budget_remaining | /^\d+$/              |
    And the stream of "a" has a "metrics" event with:
      | tokens_budget_remaining | < 100 |

  @ORCH-3099 @OC-CORE-1023 @OC-CORE-1024
  Scenario: A task that its session cannot pay for is refused before it is queued
    When I try to submit "a" to "chat" with:
      | session    | talk |
      | max_tokens | 500  |
    Then the answer is 400
    And the answer holds:
      | code  | INVALID_PARAMS |
      | field | max_tokens     |

  @ORCH-3021
  Scenario: A session has so many turns and no more
    Given the section "sessions":
      """
      max_turns: 2
      """
    And a control plane with the pools:
      | pool | slots | replicas |
      | chat | 2     | 1        |
    When I submit "a" and "b" to "chat" with:
      | session    | talk |
      | max_tokens | 2    |
    And I try to submit "c" to "chat" with:
      | session    | talk |
      | max_tokens | 2    |
    Then the answer is 400
    And the answer holds:
      | field | session_id |
