Feature: Readiness and the registry of pools

  Background:
    Given a control plane with the pools:
      | pool | slots | replicas | devices | speed |
      | chat | 1     | 2        | 0, 1    | 60    |

  @ORCH-3500 @ORCH-3501 @ORCH-3502
  Scenario: A pool tells whether it lives, is ready and drains, and what went wrong last
    Then GET "/pools/chat/status" comes to hold:
      | pool_id    | chat  |
      | live       | true  |
      | ready      | true  |
      | draining   | false |
      | last_error | none  |
    And the pool "chat" shows:
      | live            | true  |
      | ready           | true  |
      | notReadyBecause | none  |

  @ORCH-3503
  Scenario: The version and the last sign of life of its engines are known
    Then GET "/pools/chat/status" comes to hold:
      | engine_version    | /^b\d+/         |
      | last_heartbeat_ms | > 1600000000000 |
    And the engines of "chat" give another sign of life

  @ORCH-3506
  Scenario: Leases and slots are counted while tasks run, and never below zero
    Given "chat" is busy with "one"
    Then GET "/pools/chat/status" comes to hold:
      | active_leases | 1 |
      | slots_total   | 2 |
      | slots_free    | 1 |
    And the pool "chat" shows:
      | activeLeases | 1 |
      | slotsFree    | 1 |
    When I cancel "one"
    Then GET "/pools/chat/status" comes to hold:
      | active_leases | 0 |
      | slots_free    | 2 |

  @ORCH-3506
  Scenario: A pool that nobody knows is not found
    When I send GET "/pools/nope/status"
    Then the answer is 404
    And the answer holds:
      | message | pool nope not found |

  @ORCH-3507
  Scenario: Memory, device mask and measured speed are known
    When I submit "a" to "chat"
    Then "a" ends
    And GET "/pools/chat/status" comes to hold:
      | device_mask       | 0,1         |
      | vram_total_bytes  | 38654705664 |
      | vram_free_bytes   | 36507222016   |
      | tokens_per_second | > 1         |
      | first_token_ms    | >= 0        |
