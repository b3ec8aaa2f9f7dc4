Feature: Engines
  Four engines behind one face.

  @ORCH-3054 @ORCH-3055 @ORCH-3056 @ORCH-3057 @ORCH-3058 @OC-ADAPT
  Scenario Outline: A task is streamed, cancelled and told by <engine>
    Given a control plane with the pools:
      | pool     | engine   | slots | replicas | speed |
      | llamacpp | llamacpp | 1     | 1        | 60    |
      | vllm     | vllm     | 1     | 1        | 60    |
      | tgi      | tgi      | 1     | 1        | 60    |
      | triton   | triton   | 1     | 1        | 60    |
    Then the pool "<engine>" shows:
      | ready         | true |
      | engineVersion | any  |
    When I submit "a" to "<engine>"
    Then the stream of "a" is whole
    And "a" ends
    And the task "a" shows:
      | receipt.engineVersion | any |
      | receipt.modelId       | any |
    When I submit "b" to "<engine>" with:
      | max_tokens | 2000 |
    And "b" is streaming
    And I cancel "b"
    Then "b" is canceled
    And the metrics have grown by:
      | tokens_out_total | pool_id=<engine> | >= 20 |

    Examples:
      | engine   |
      | llamacpp |
      | vllm     |
      | tgi      |
      | triton   |
