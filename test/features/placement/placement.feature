Feature: Placement
  Where a task goes is decided by rules, and every decision can be explained.

  Background:
    Given a control plane with the pools:
      | pool    | engine   | model  | replicas | slots | speed | devices | ctx  | faults      | ready |
      | asleep  | llamacpp | shared | 1        | 2     | 200   | 0       | 4096 | never-ready | no    |
      | cramped | llamacpp | shared | 1        | 2     | 200   | 1       | 4096 |             |       |
      | roomy   | llamacpp | shared | 1        | 2     | 200   | 0       | 4096 |             |       |
      | short   | llamacpp | shared | 1        | 2     | 200   | 1       | 512  |             |       |
      | other   | vllm     | apart  | 1        | 2     | 200   | 1       | 4096 |             |       |
      | pair    | llamacpp | paired | 2        | 2     | 200   | 1, 0    | 4096 |             |       |
      | twins   | llamacpp | twin   | 2        | 2     | 200   | 1       | 4096 |             |       |
    And the pool "pair" shows:
      | slotsFree | 4 |
    And the pool "twins" shows:
      | slotsFree | 4 |

  @ORCH-3009 @OC-CORE-1015 @OC-CORE-1016 @long
  Scenario: Among pools the ready ones come first, then free slots, then free memory
    When I submit "first" to "roomy" with:
      | placement.mode | auto |
      | max_tokens     | 4000 |
      | ctx            | 4096 |
    And "first" is streaming
    And I submit "second" to "roomy" with:
      | placement.mode | auto |
    Then "second" ends
    And the task "first" shows:
      | pool.name                                | roomy |
      | placement.chosen                         | roomy |
      | placement.rule                           | ready, preferred, session, free slots, queue depth, free VRAM, id |
      | placement.candidates[pool=roomy].rank    | 1     |
      | placement.candidates[pool=cramped].rank  | 2     |
      | placement.candidates[pool=asleep].rank   | 3     |
      | placement.candidates[pool=asleep].score.vramFreeBytes | 0 |
    And the task "second" shows:
      | pool.name                                        | cramped |
      | placement.candidates[pool=cramped].rank          | 1       |
      | placement.candidates[pool=cramped].score.slotsFree | 2     |
      | placement.candidates[pool=roomy].rank            | 2       |
      | placement.candidates[pool=roomy].score.slotsFree | 1       |

  @ORCH-3009 @ORCH-3012 @OC-CORE-1016
  Scenario: Among replicas more free memory comes first, whatever runs there
    Given "pair" is busy with "a", "b" and "c"
    Then the replica "pair-0" shows:
      | deviceMask | 1 |
    And the task "a" shows:
      | replica.name | pair-1 |
    And the task "b" shows:
      | replica.name | pair-1 |
    And the task "c" shows:
      | replica.name | pair-0 |

  @ORCH-3009 @ORCH-3012 @OC-CORE-1016
  Scenario: Among replicas with as much free memory fewer tasks come first, then the id
    Given "twins" is busy with "a", "b", "c" and "d"
    Then the task "a" shows:
      | replica.name | twins-0 |
    And the task "b" shows:
      | replica.name | twins-1 |
    And the task "c" shows:
      | replica.name | twins-0 |
    And the task "d" shows:
      | replica.name | twins-1 |
    And the pool "twins" shows at once:
      | slotsFree    | 0 |
      | activeLeases | 4 |

  @ORCH-3007 @ORCH-3046 @OC-CORE-1010 @OC-CORE-1011 @OC-CORE-1012 @OC-CORE-1013
  Scenario: A pool of another engine or model, or with a shorter context, is ruled out by name
    When I submit "a" to "roomy" with:
      | placement.mode | auto |
    Then "a" ends
    And the task "a" shows:
      | placement.candidates[pool=other].rank                        | none   |
      | placement.candidates[pool=other].rules[rule=ENGINE].passed   | false  |
      | placement.candidates[pool=other].rules[rule=MODEL].passed    | false  |
      | placement.candidates[pool=other].rules[rule=CONTEXT].passed  | true   |
      | placement.candidates[pool=other].refusedBecause              | engine is vllm, not llamacpp |
      | placement.candidates[pool=twins].rules[rule=ENGINE].passed   | true   |
      | placement.candidates[pool=twins].rules[rule=MODEL].passed    | false  |
      | placement.candidates[pool=short].rank                        | none   |
      | placement.candidates[pool=short].rules[rule=MODEL].passed    | true   |
      | placement.candidates[pool=short].rules[rule=CONTEXT].passed  | false  |
      | placement.candidates[pool=short].rules[rule=CONTEXT].message | /4096.*512/ |
      | placement.candidates[pool=short].refusedBecause              | /4096.*512/ |

  @OC-CORE-1014
  Scenario: A pool that drains gets nothing, and takes its part again after a resume
    When I drain "roomy" within 1000 ms
    Then the operation ends as SUCCEEDED
    When I submit "a" to "cramped" with:
      | placement.mode | auto |
    Then "a" ends
    And the task "a" shows:
      | pool.name                                                    | cramped |
      | placement.candidates[pool=roomy].rank                        | none    |
      | placement.candidates[pool=roomy].rules[rule=DRAINING].passed | false   |
    When I resume "roomy"
    Then the pool "roomy" shows:
      | ready | true |
    When I submit "b" to "cramped" with:
      | placement.mode | auto |
    Then "b" ends
    And the task "b" shows:
      | placement.candidates[pool=roomy].rules[rule=DRAINING].passed | true |

  @OC-CTRL-2013
  Scenario: A pin goes to its pool or nowhere
    When I submit "a" to "cramped"
    Then "a" ends
    And the task "a" shows:
      | pool.name                                               | cramped |
      | placement.candidates[pool=roomy].rules[rule=PIN].passed | false   |
    When I try to submit "b" to "cramped" with:
      | placement.mode        | pin  |
      | placement.pin_pool_id | nope |
    Then the answer is 400
    And the answer holds:
      | code  | INVALID_PARAMS        |
      | field | placement.pin_pool_id |
    When I try to submit "c" to "cramped" with:
      | placement.mode        | pin   |
      | placement.pin_pool_id | other |
    Then the answer is 400

  @OC-CTRL-2013 @OC-CORE-1015 @long
  Scenario: A pin to a pool that cannot serve is refused while another pool would do, which others get
    Given a control plane configured as:
      """
      gpu: { mode: simulated, devices: [{ name: Big, memory_bytes: 25769803776 }] }
      pools:
        - id: away
          engine: llamacpp
          model: /nowhere/shared.gguf
          devices: [0]
          provisioning: { mode: binary, binary: { url: "file:///bin/sleep" } }
        - id: there
          engine: llamacpp
          model: /nowhere/shared.gguf
          devices: [0]
          provisioning: { mode: simulated }
      """
    Then the pool "away" shows:
      | ready          | false         |
      | lastError.code | MODEL_MISSING |
    And the pool "there" shows:
      | ready | true |
    When I try to submit "a" to "away"
    Then the answer is 503
    And the answer has the headers:
      | retry-after | >= 1 |
    And the answer holds:
      | code      | POOL_UNREADY    |
      | message   | /does not exist/ |
      | retriable | true            |
    And there is no task "a"
    When I submit "b" to "away" with:
      | placement.mode | auto |
    Then "b" ends
    And the task "b" shows:
      | pool.name                                                  | there |
      | placement.candidates[pool=away].rank                       | none  |
      | placement.candidates[pool=away].rules[rule=UNREADY].passed | false |

  @OC-CTRL-2014
  Scenario: What the caller avoids, prefers and requires is kept
    When I submit "avoiding" to "roomy" with:
      | placement.avoid_pools | ["roomy"] |
    And I submit "preferring" to "roomy" with:
      | placement.mode         | prefer      |
      | placement.prefer_pools | ["cramped"] |
    And I submit "requiring" to "roomy" with:
      | placement.require_device_mask | 1 |
    Then "avoiding", "preferring" and "requiring" end
    And the task "avoiding" shows:
      | pool.name                                                   | cramped |
      | placement.candidates[pool=roomy].rules[rule=AVOIDED].passed | false   |
    And the task "preferring" shows:
      | pool.name                             | cramped |
      | placement.candidates[pool=roomy].rank | 2       |
    And the task "requiring" shows:
      | pool.name                                                       | cramped |
      | placement.candidates[pool=roomy].rules[rule=DEVICE_MASK].passed | false   |

  @OC-CTRL-2014
  Scenario: A preference without fallback is refused where it cannot be kept, and gives way with one
    When I try to submit "a" to "roomy" with:
      | placement.mode           | prefer    |
      | placement.prefer_pools   | ["other"] |
      | placement.allow_fallback | false     |
    Then the answer is 400
    And the answer holds:
      | code    | INVALID_PARAMS     |
      | field   | placement          |
      | message | /fallback is off/  |
    When I submit "b" to "roomy" with:
      | placement.mode         | prefer    |
      | placement.prefer_pools | ["other"] |
    Then "b" ends
    And the metrics have grown by:
      | placement_decisions_total | outcome=assigned, fallback=true | 1 |

  @ORCH-3009
  Scenario: A placement can be asked about without making a task
    When I ask GraphQL:
      """
      { explainPlacement(input: { modelRef: "shared", prompt: "hello", maxTokens: 5, ctx: 1024, placement: { avoidPools: ["cramped"] } }) {
          chosen rule candidates { pool rank refusedBecause rules { rule passed } } } }
      """
    Then the answer holds:
      | data.explainPlacement.chosen                                  | roomy                  |
      | data.explainPlacement.candidates[pool=roomy].rank             | 1                      |
      | data.explainPlacement.candidates[pool=cramped].refusedBecause | avoided by the request |
      | data.explainPlacement.candidates[pool=short].refusedBecause   | /1024.*512/            |
    And the metrics have grown by:
      | tasks_enqueued_total | | 0 |
