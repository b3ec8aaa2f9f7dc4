Feature: Device masks

  Background:
    Given a control plane with the pools:
      | pool  | replicas | devices | vram GiB | split | ready |
      | both  | 2        | 0, 1    | 2        |       | yes   |
      | small | 1        | 1       | 14       |       | no    |
      | split | 1        | 0, 1    | 3        | 2:1   | yes   |
      | wide  | 1        | 0, 1    | 13       | 1:1   | no    |

  @ORCH-3011 @OC-POOL-3020 @long
  Scenario: Each engine has a device of its pool's mask, and memory of that alone
    Then the pool "both" shows:
      | deviceMask            | 0,1  |
      | replicas.*.deviceMask | 0, 1 |
    When I ask GraphQL:
      """
      { gpus { index replicas { name } } }
      """
    Then the answer holds:
      | data.gpus[index=0].replicas.*.name | /^both-0, split-0/ |
      | data.gpus[index=1].replicas.*.name | /^both-1.*split-0/ |

  @ORCH-3011 @OC-POOL-3020 @long
  Scenario: A model that its own device cannot hold does not spill onto another one that could
    Then the pool "small" shows:
      | ready             | false             |
      | lastError.code    | VRAM_INSUFFICIENT |
      | lastError.message | /GPU 1/           |

  @ORCH-3052 @OC-POOL-3021 @long
  Scenario: A split spans the devices of its pool, and the smallest bounds what it may take of each
    Then the pool "split" shows:
      | ready                 | true |
      | replicas.*.deviceMask | 0,1  |
    And the pool "wide" shows:
      | ready             | false             |
      | lastError.code    | VRAM_INSUFFICIENT |
      | lastError.message | /GPU 1 .Small./   |

  @ORCH-3052 @OC-POOL-3021
  Scenario: Ratios of a split are a choice, one for each device
    When I run "plan" with the configuration:
      """
      gpu: { mode: simulated, devices: [{ name: Big, memory_bytes: 25769803776 }, { name: Small, memory_bytes: 12884901888 }] }
      pools:
        - id: chat
          engine: llamacpp
          model: m
          devices: [0, 1]
          tensor_split: [2]
          provisioning: { mode: simulated }
      """
    Then it exits with 1
    And it says "tensor_split"
    And it says "give one ratio per device"
