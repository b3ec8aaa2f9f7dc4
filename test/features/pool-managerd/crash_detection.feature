Feature: Crash detection

  Background:
    Given a control plane with the pools:
      | pool | slots | replicas | speed |
      | chat | 2     | 1        | 50    |

  @ORCH-3038 @OC-POOL-3010
  Scenario: An engine that is killed is found, recorded and started anew, and its task goes on
    Given "chat" is busy with "a"
    When the engine of "chat-0" is killed
    Then the task "a" shows:
      | attempts | 2         |
      | status   | STREAMING |
    And "a" goes on streaming
    When I cancel "a"
    Then the stream of "a" is whole
    And the replica "chat-0" shows:
      | state            | READY   |
      | restartCount     | > 0     |
      | lastCrash.signal | SIGKILL |
    And the pool "chat" has told:
      | replica_crashed | any               |
      | replica_restart | /^restart \d+ in / |
      | replica_preload | /^preload passed/ |

  @ORCH-3053 @long
  Scenario Outline: What a dying engine says becomes the reason, each its own: <fault>
    Given the engine of "chat-0" gets the fault "<fault>"
    When I submit "b" to "chat" with:
      | determinism | best_effort |
    Then "b" ends as FAILED with WORKER_RESET
    And the replica "chat-0" shows:
      | lastCrash.fault | <reason> |
      | lastCrash.fix   | any      |
      | state           | READY    |

    Examples:
      | fault                 | reason         |
      | cuda-error-at-token:3 | CUDA_ERROR     |
      | oom-at-token:3        | VRAM_OOM_RUNTIME |
