Feature: What a control plane tells of itself

  Background:
    Given a control plane with the pools:
      | pool  | engine   | slots | ctx  |
      | chat  | llamacpp | 2     | 4096 |
      | other | vllm     | 3     | 8192 |

  @ORCH-3095 @OC-CTRL-2060 @OC-CTRL-2061 @OC-CTRL-2062
  Scenario: Engines, contexts, workloads and concurrency are told under a version
    When I send GET "/v1/capabilities"
    Then the answer is 200
    And the answer holds:
      | api_version                                    | /^\d+\.\d+\.\d+$/ |
      | engines[engine=llamacpp].ctx_max               | 4096              |
      | engines[engine=llamacpp].supported_workloads   | /completion/      |
      | engines[engine=llamacpp].features.concurrency  | 2                 |
      | engines[engine=vllm].ctx_max                   | 8192              |
      | engines[engine=vllm].features.concurrency      | 3                 |

  Scenario: It lives, and says when it can serve
    When I send GET "/health"
    Then the answer is 200
    And the answer holds:
      | status  | ok  |
      | version | any |
    When I send GET "/ready"
    Then the answer is 200

  @ORCH-3054
  Scenario Outline: Interfaces of engines stay inside: <path>
    When I send GET "<path>"
    Then the answer is 404

    Examples:
      | path                 |
      | /v1/replicasets      |
      | /v1/chat/completions |
      | /v1/completions      |
