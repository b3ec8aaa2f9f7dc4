Feature: Observability of pools

  Background:
    Given a control plane with the pools:
      | pool | slots | replicas | speed |
      | chat | 2     | 1        | 50    |

  @OC-POOL-3030 @ORCH-3027
  Scenario: Preloads, restarts and changes of readiness are told, counted and logged
    When the engine of "chat-0" is killed
    Then the pool "chat" has told:
      | replica_restart | any               |
      | replica_preload | /^preload passed/ |
    And the pool "chat" has told:
      | replica_state | any |
    And the metrics have grown by:
      | replica_restarts_total              | pool_id=chat                   | 1   |
      | replica_preload_total               | pool_id=chat, outcome=passed   | 1   |
      | replica_readiness_transitions_total | pool_id=chat                   | >= 2 |
    And a log line tells:
      | pool_id    | chat   |
      | replica_id | chat-0 |
      | human      | any    |

  @OC-POOL-3030
  Scenario: The use of GPU and host memory is told
    Then the metrics come to hold:
      | vram_used_bytes             | replica_id=chat-0 | 1073741824 |
      | vram_total_bytes            | device=0          | 25769803776 |
      | host_memory_total_bytes     |                   | > 0 |
      | host_memory_available_bytes |                   | > 0 |

  @OC-POOL-3030
  Scenario: Events of pools can be read from any of them on
    Then the events of "chat" can be read on from each of the last 5
