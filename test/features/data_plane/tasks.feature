Feature: Tasks over REST

  Background:
    Given a control plane with the pools:
      | pool | slots | replicas | speed |
      | chat | 2     | 2        | 40    |
      | one  | 1     | 1        | 40    |

  @ORCH-3002
  Scenario: A task is admitted, streamed and ended
    When I submit "a" to "chat"
    Then the stream of "a" is whole
    And "a" ends
    And GraphQL tells of "a" what REST tells

  Scenario: cancel
    Given "one" is busy with "holder"
    When I submit "b" and "c" to "one"
    And I cancel "holder"
    Then "holder" is canceled
    And "b" and "c" end
    And "b" and "c" started in this order
