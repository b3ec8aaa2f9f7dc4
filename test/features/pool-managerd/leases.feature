Feature: Leases

  Background:
    Given a control plane with the pools:
      | pool | slots | replicas | devices | speed |
      | chat | 1     | 2        | 0, 1    | 60    |

  @ORCH-3506 @ORCH-3012
  Scenario: A slot is held by one task at a time, and free again after its end
    Given "chat" is busy with "one" and "two"
    When I submit "three" to "chat"
    Then the task "three" shows:
      | status                | QUEUED     |
      | waitingBecause.*.code | /SLOTS_BUSY/ |
    And the pool "chat" shows:
      | activeLeases | 2 |
      | slotsFree    | 0 |
    When I cancel "one"
    Then "three" ends
    And the task "one" shows:
      | lease.releasedAt | any |
    And the pool "chat" shows:
      | activeLeases | 1 |

  @ORCH-3506
  Scenario: Every lease has a fencing token of its own, and each later one a higher
    When I submit "a" to "chat"
    Then "a" ends
    When I submit "b" to "chat"
    Then "b" ends
    And the lease of "b" has a higher fencing token than that of "a"
    When I ask GraphQL:
      """
      { leases(first: 1) { edges { node { fencingToken holder slot releasedAt } } } }
      """
    Then the answer holds:
      | data.leases.edges[0].node.fencingToken | > 1 |
      | data.leases.edges[0].node.holder       | any |
      | data.leases.edges[0].node.releasedAt   | any |
