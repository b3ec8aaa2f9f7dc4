Feature: Drain

  Background:
    Given a control plane with the pools:
      | pool | slots | replicas | speed |
      | chat | 2     | 1        | 50    |

  @ORCH-3505 @OC-CTRL-2002
  Scenario: A drain refuses new work at once and lets what runs finish
    When I submit "a" to "chat" with:
      | max_tokens | 150 |
    And "a" is streaming
    And I drain "chat" within 20000 ms
    And I try to submit "b" to "chat"
    Then the answer is 503
    And the answer holds:
      | code | POOL_UNAVAILABLE |
    And the operation ends as SUCCEEDED
    And the operation shows:
      | outcome                           | drained: 1 task finished, 0 force-stopped |
      | steps[name=force_stop].state      | SKIPPED                                   |
    And the stream of "a" is whole
    And "a" ends
    When I resume "chat"
    Then the operation ends as SUCCEEDED
    And the pool "chat" shows:
      | ready    | true  |
      | draining | false |

  @ORCH-3505 @OC-CTRL-2002
  Scenario: What runs at the deadline is stopped, both outcomes are told, and it goes on after a resume
    Given "chat" is busy with "a"
    When I drain "chat" within 300 ms
    Then the operation ends as SUCCEEDED
    And the operation shows:
      | outcome | drained: 0 tasks finished, 1 force-stopped |
    And the pool "chat" has told:
      | drain_started | any |
      | drain_ended   | any |
    When I resume "chat"
    Then the task "a" shows:
      | attempts | 2         |
      | status   | STREAMING |
    And "a" goes on streaming
    When I cancel "a"
    Then the stream of "a" is whole
    And the metrics have grown by:
      | drain_duration_ms_count | pool_id=chat | 1 |

  @OC-CTRL-2002
  Scenario: REST drains too, and says where to look
    When I send POST "/v1/pools/chat/drain" with:
      """
      { "deadline_ms": 5000 }
      """
    Then the answer is 202
    And the answer has the headers:
      | location | /^\/v1\/operations\/.+/ |
    And GET "/v1/pools/chat/health" comes to hold:
      | draining | true  |
      | ready    | false |
    And the pool "chat" shows:
      | operation | none |
    When I resume "chat"
    Then the pool "chat" shows:
      | ready | true |

  @OC-CTRL-2002
  Scenario: One operation at a time: another is refused by name
    Given "chat" is busy with "a"
    When I drain "chat" within 2000 ms
    And I reload "chat" to "other-7b" within 1000 ms
    Then the answer holds:
      | __typename | Conflict |
      | field      | pool     |
      | message    | /drain/  |
    When I cancel "a"
    Then the pool "chat" shows:
      | operation | none |
    When I resume "chat"
    Then the pool "chat" shows:
      | ready | true |
