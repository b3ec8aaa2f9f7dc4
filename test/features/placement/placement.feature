Feature: Placement
  Where a task goes is decided by rules, and every decision can be explained.

  Background:
    Given a control plane with the pools:
      | pool  | engine   | model  | slots | devices | vram GiB | ctx  |
      | big   | llamacpp | shared | 2     | 0       | 1        | 4096 |
      | small | llamacpp | shared | 2     | 1       | 1        | 4096 |
      | short | llamacpp | shared | 2     | 1       | 1        | 512  |
      | other | vllm     | apart  | 2     | 1       | 1        | 4096 |

  @ORCH-3009 @ORCH-3012 @OC-CORE-1016
  Scenario: Among pools that could take it the one with more free memory does
    When I submit "a" to "big" with:
      | placement.mode | auto |
    Then "a" ends
    And the task "a" shows:
      | pool.name                                                    | big |
      | placement.chosen                                             | big |
      | placement.candidates[pool=big].rank                          | 1   |
      | placement.candidates[pool=small].rank                        | 2   |

  @ORCH-3007 @ORCH-3046 @OC-CORE-1010 @OC-CORE-1011 @OC-CORE-1012 @OC-CORE-1013
  Scenario: A pool of another engine or model, or with a shorter context, is ruled out by name
    When I submit "a" to "big" with:
      | placement.mode | auto |
    Then "a" ends
    And the task "a" shows:
      | placement.candidates[pool=other].rank                       | none   |
      | placement.candidates[pool=other].rules[rule=ENGINE].passed  | false  |
      | placement.candidates[pool=other].rules[rule=MODEL].passed   | false  |
      | placement.candidates[pool=short].rank                       | none   |
      | placement.candidates[pool=short].rules[rule=CONTEXT].passed | false  |
      | placement.candidates[pool=short].refusedBecause             | any    |

  @OC-CORE-1014
  Scenario: A pool that drains gets nothing, and takes its part again after a resume
    When I drain "big" within 1000 ms
    Then the operation ends as SUCCEEDED
    When I submit "a" to "small" with:
      | placement.mode | auto |
    Then "a" ends
    And the task "a" shows:
      | pool.name                                                     | small |
      | placement.candidates[pool=big].rules[rule=DRAINING].passed    | false |
    When I resume "big"
    Then the pool "big" shows:
      | ready | true |

  @OC-CTRL-2013
  Scenario: A pin goes to its pool or nowhere
    When I submit "a" to "small"
    Then "a" ends
    And the task "a" shows:
      | pool.name | small |
    When I try to submit "b" to "small" with:
      | placement.mode        | pin  |
      | placement.pin_pool_id | nope |
    Then the answer is 400
    And the answer holds:
      | code | INVALID_PARAMS |

  @OC-CTRL-2014
  Scenario: What the caller avoids, prefers and requires is kept
    When I submit "avoiding" to "small" with:
      | placement.avoid_pools | ["big"] |
    And I submit "preferring" to "small" with:
      | placement.mode         | prefer    |
      | placement.prefer_pools | ["small"] |
    And I submit "requiring" to "small" with:
      | placement.require_device_mask | 0 |
    Then "avoiding", "preferring" and "requiring" end
    And the task "avoiding" shows:
      | pool.name | small |
    And the task "preferring" shows:
      | pool.name | small |
    And the task "requiring" shows:
      | pool.name | big |

  @OC-CTRL-2014
  Scenario: A preference without fallback is refused where it cannot be kept
    When I try to submit "a" to "small" with:
      | placement.mode           | prefer    |
      | placement.prefer_pools   | ["other"] |
      | placement.allow_fallback | false     |
    Then the answer is 400

  @ORCH-3009
  Scenario: A placement can be asked about without making a task
    When I ask GraphQL:
      """
      { explainPlacement(input: { modelRef: "shared", prompt: "hello", maxTokens: 5, ctx: 1024 }) {
          chosen rule candidates { pool rank refusedBecause rules { rule passed } } } }
      """
    Then the answer holds:
      | data.explainPlacement.chosen                              | /^(big\|small)$/ |
      | data.explainPlacement.candidates[pool=short].refusedBecause | any |
