Feature: GPU preflight
  Inference runs on NVIDIA GPUs or not at all; what is imitated says so.

  @ORCH-1101 @OC-POOL-3012 @HME-013
  Scenario: Without a usable GPU a pool stays not ready and says how to mend it
    Given a host whose driver finds no GPU
    And a control plane configured as:
      """
      gpu: { mode: nvidia }
      pools:
        - id: chat
          engine: llamacpp
          model: /etc/hostname
          devices: [0]
          provisioning: { mode: binary, binary: { url: "file:///bin/sleep" } }
      """
    Then the pool "chat" shows:
      | ready             | false             |
      | live              | false             |
      | lastError.code    | NO_GPU            |
      | lastError.message | /no usable GPU/   |
      | lastError.fix     | /NVIDIA driver/   |
    And the pool "chat" has told:
      | replica_preload | /^preload refused/ |
    When I send GET "/ready"
    Then the answer is 503
    When I try to submit "a" to "chat"
    Then the answer is 503

  @ORCH-1102 @long
  Scenario Outline: An engine that fell back to the CPU is never served from: <engine>
    Given a control plane with the pools:
      | pool     | engine   | replicas | slots | devices | speed | faults       | ready |
      | mixed    | llamacpp | 2        | 1     | 0, 1    | 40    |              | yes   |
      | llamacpp | llamacpp | 1        | 1     | 0       |       | cpu-fallback | no    |
      | vllm     | vllm     | 1        | 1     | 0       |       | cpu-fallback | no    |
    Then the pool "<engine>" shows:
      | ready          | false  |
      | lastError.code | <code> |
      | lastError.fix  | any    |
    When I submit "a" to "<engine>"
    Then the task "a" shows:
      | status    | QUEUED |
      | attempts  | 0      |
      | startedAt | none   |
    And the pool "<engine>" shows:
      | ready        | false |
      | activeLeases | 0     |

    Examples:
      | engine   | code         |
      | llamacpp | CPU_FALLBACK |
      | vllm     | NO_GPU       |

  @ORCH-1103 @HME-010 @long
  Scenario: GPUs of 24 and 12 GB of one host work at the same time, and are shown as simulated
    Given a control plane with the pools:
      | pool     | engine   | replicas | slots | devices | speed | faults       | ready |
      | mixed    | llamacpp | 2        | 1     | 0, 1    | 40    |              | yes   |
      | llamacpp | llamacpp | 1        | 1     | 0       |       | cpu-fallback | no    |
      | vllm     | vllm     | 1        | 1     | 0       |       | cpu-fallback | no    |
    And "mixed" is busy with "one" and "two"
    Then the pool "mixed" shows:
      | simulated                   | true                     |
      | devices.*.memoryTotalBytes  | 25769803776, 12884901888 |
      | devices.*.simulated         | true, true               |
      | activeLeases                | 2                        |
      | replicas.*.deviceMask       | 0, 1                     |
      | replicas.*.slotsFree        | 0, 0                     |

  @ORCH-3039 @OC-POOL-3030 @long
  Scenario: A GPU that is lost takes its engine along, and the other goes on
    Given a host with two GPUs
    And a control plane with the pools:
      | pool | replicas | slots | devices |
      | chat | 2        | 1     | 0, 1    |
    When GPU 0 falls off the bus
    Then the replica "chat-0" shows:
      | lastError.code | GPU_UNUSABLE |
    And the pool "chat" has told:
      | gpu_lost | any |
    And the replica "chat-1" shows:
      | state        | READY |
      | restartCount | 0     |
    When GPU 0 is back
    Then the replica "chat-0" shows:
      | state | READY |

  @ORCH-3053 @ORCH-3507 @OC-POOL-3030 @long
  Scenario: A driver that began anew is told and counted, and its engines are started anew
    Given a host with two GPUs
    And a control plane with the pools:
      | pool | slots | devices |
      | chat | 1     | 0       |
    Then GET "/pools/chat/status" comes to hold:
      | compute_capability | 8.6 |
    When the driver is reset
    Then the metrics come to hold:
      | gpu_driver_resets_total | | 1 |
    And the pool "chat" has told:
      | gpu_driver_reset | /driver began anew/ |
    And the replica "chat-0" shows:
      | state        | READY |
      | restartCount | > 0   |
