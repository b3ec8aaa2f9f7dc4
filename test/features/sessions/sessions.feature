Feature: Sessions

  Background:
    Given a control plane with the pools:
      | pool | slots | replicas | devices | speed |
      | chat | 1     | 2        | 0, 1    | 60    |

  @ORCH-3021 @ORCH-3022
  Scenario: A session is made by its first task and counts its turns
    When I submit "a" to "chat" with:
      | session | talk |
    Then "a" ends
    And the session "talk" shows:
      | turns          | 1        |
      | ttlMsRemaining | <= 600000 |
    When I submit "b" to "chat" with:
      | session | talk |
    Then "b" ends
    And the session "talk" shows:
      | turns | 2 |

  @ORCH-3009 @ORCH-3023 @OC-CORE-1017
  Scenario: A session goes back to where it ran, and its cache may be warm there
    When I submit "a" to "chat" with:
      | session | talk |
    Then "a" ends
    When I submit "b" to "chat" with:
      | session | talk |
    Then "b" ends
    And the stream of "b" has a "metrics" event with:
      | kv_warmth | true |
    And the session "talk" shows:
      | kvWarmth | true |

  @ORCH-3023 @OC-CORE-1017
  Scenario: Where its replica cannot take it, it runs elsewhere, and cold
    When I submit "a" to "chat" with:
      | session | talk |
    Then "a" ends
    And the session "talk" shows:
      | lastReplica.name | /^chat-[01]$/ |
    When the engine of "chat-0" is killed
    And the replica "chat-0" shows:
      | state | READY |
    And the engine of "chat-1" is killed
    And the replica "chat-1" shows:
      | state | READY |
    And I submit "b" to "chat" with:
      | session | talk |
    Then "b" ends
    And the stream of "b" has a "metrics" event with:
      | kv_warmth | false |

  @ORCH-3022
  Scenario: A session that is deleted is gone
    When I submit "a" to "chat" with:
      | session | talk |
    Then "a" ends
    When I ask GraphQL:
      """
      mutation { deleteSession(input: { sessionId: "{id of session talk}" }) { __typename } }
      """
    Then the session "talk" is gone
