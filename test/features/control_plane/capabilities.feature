Feature: What a control plane tells of itself

  Background:
    Given a control plane with the pools:
      | pool  | engine   | slots | ctx  | rps | speed |
      | chat  | llamacpp | 2     | 4096 | 50  | 60    |
      | other | vllm     | 3     | 8192 |     | 60    |

  @ORCH-3095 @OC-CTRL-2060 @OC-CTRL-2061 @OC-CTRL-2062
  Scenario: Engines, contexts, workloads and concurrency are told under a version
    When I send GET "/v1/capabilities"
    Then the answer is 200
    And the answer holds:
      | api_version                                                 | /^\d+\.\d+\.\d+$/ |
      | engines.*.engine                                            | llamacpp, vllm    |
      | engines[engine=llamacpp].ctx_max                            | 4096              |
      | engines[engine=llamacpp].supported_workloads[0]             | completion        |
      | engines[engine=llamacpp].features.concurrency               | 2                 |
      | engines[engine=llamacpp].features.pools[pool_id=chat].supported_workloads[0] | completion |
      | engines[engine=llamacpp].rate_limits.chat.interactive.requests_per_second | 50  |
      | engines[engine=vllm].ctx_max                                | 8192              |
      | engines[engine=vllm].supported_workloads[0]                 | completion        |
      | engines[engine=vllm].features.concurrency                   | 3                 |
    When I ask GraphQL:
      """
      { capabilities { engines { engine contextMax concurrency workloads } } }
      """
    Then the answer holds:
      | data.capabilities.engines[engine=LLAMACPP].contextMax  | 4096 |
      | data.capabilities.engines[engine=LLAMACPP].concurrency | 2    |
      | data.capabilities.engines[engine=VLLM].contextMax      | 8192 |

  Scenario: It lives, and says when it can serve
    When I send GET "/health"
    Then the answer is 200
    And the answer holds:
      | status  | ok                |
      | version | /^\d+\.\d+\.\d+/ |
    When I send GET "/ready"
    Then the answer is 200

  @ORCH-3054
  Scenario Outline: Interfaces of engines stay inside: <path>
    When I send GET "<path>"
    Then the answer is 404
    When I send POST "<path>"
    Then the answer is 404

    Examples:
      | path                 |
      | /v1/replicasets      |
      | /v1/chat/completions |
      | /v1/completions      |
      | /completion          |
