Feature: Embeddings and rankings

  Background:
    Given a control plane with the pools:
      | pool | engine   | model  | flags       | ctx | slots |
      | vec  | llamacpp | bge    | --embedding | 64  | 1     |
      | rank | llamacpp | ranker | --reranking | 64  | 1     |

  @ORCH-3054 @OC-ADAPT
  Scenario: Texts become vectors, told with the end of the stream
    When I submit "a" to "vec" with:
      | workload   | embedding             |
      | inputs     | ["a river", "a stone"] |
      | max_tokens | 0                     |
    Then "a" ends
    And the stream of "a" has the events "started end"
    And the stream of "a" has the "end" event with:
      | result.embeddings[0][0] | any |
      | result.embeddings[1][0] | any |

  @ORCH-3054 @OC-ADAPT
  Scenario: Texts are ranked by a question
    When I submit "a" to "rank" with:
      | workload   | rerank                 |
      | prompt     | the river              |
      | inputs     | ["a river", "a stone"] |
      | max_tokens | 0                      |
    Then "a" ends
    And the stream of "a" has the "end" event with:
      | result.ranking[0].score | any      |
      | result.ranking[1].score | any      |
      | result.ranking[0].index | /^[01]$/ |
      | result.ranking[1].index | /^[01]$/ |

  Scenario: A pool that does not offer a workload is no place for it
    When I try to submit "a" to "vec" with:
      | max_tokens | 5 |
    Then the answer is 400
    And the answer holds:
      | code  | INVALID_PARAMS |
      | field | workload       |
