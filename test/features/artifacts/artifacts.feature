Feature: Artifacts

  Background:
    Given a control plane with the pools:
      | pool | slots | replicas | speed |
      | chat | 2     | 1        | 50    |

  @ORCH-3097 @ORCH-3098
  Scenario: An artifact is kept under the hash of its content, and given back as it came
    When I keep the artifact "plan" with:
      | kind     | plan                                |
      | content  | { "steps": ["a", "b"], "cost": 1.5 } |
      | tags     | ["x"]                               |
      | metadata | { "by": "me" }                      |
    Then the answer is 201
    And the answer holds:
      | id         | /^sha256:[0-9a-f]{64}$/ |
      | digest     | /^sha256:[0-9a-f]{64}$/ |
      | kind       | plan                    |
      | created_ms | > 0                     |
    When I look up the artifact "plan"
    Then the answer is 200
    And the answer holds:
      | kind          | plan |
      | content.steps | a, b |
      | content.cost  | 1.5  |
      | tags          | x    |
      | metadata.by   | me   |

  @ORCH-3097
  Scenario: The same document is one artifact however often it is kept, and another one is another
    When I keep the artifact "first" with:
      | kind    | summary                       |
      | content | { "of": "a river", "cost": 2 } |
    And I keep the artifact "again" with:
      | kind    | summary                        |
      | content | { "cost": 2, "of": "a river" } |
    And I keep the artifact "other" with:
      | kind    | summary                        |
      | content | { "of": "a stone", "cost": 2 } |
    Then the artifacts "first" and "again" are one
    And the artifacts "first" and "other" are two

  @ORCH-3098
  Scenario Outline: An artifact may be a <kind>
    When I keep the artifact "one" with:
      | kind    | <kind>               |
      | content | { "of": "a <kind>" } |
    Then the answer is 201
    And the answer holds:
      | kind | <kind> |

    Examples:
      | kind    |
      | plan    |
      | summary |
      | diff    |
      | trace   |
      | other   |

  @ORCH-3098
  Scenario: Kinds are a closed set, and a parent must be there
    When I keep the artifact "song" with:
      | kind    | song |
      | content | {}   |
    Then the answer is 400
    And the answer holds:
      | field | kind |
    When I keep the artifact "orphan" with:
      | kind    | diff |
      | content | {}   |
      | parent  | sha256:0000000000000000000000000000000000000000000000000000000000000000 |
    Then the answer is 400
    And the answer holds:
      | field | parent |
    When I keep the artifact "line" with:
      | kind    | plan               |
      | content | { "of": "a line" } |
    And I keep the artifact "child" with:
      | kind    | diff               |
      | content | { "of": "a line" } |
      | tags    | ["child"]          |
      | parent  | line               |
    Then the answer is 201
    When I look up the artifact "child"
    Then the answer holds:
      | kind | diff  |
      | tags | child |
    And the parent in the answer is the artifact "line"

  @ORCH-3097
  Scenario: What nobody kept is not found
    When I send GET "/v1/artifacts/sha256:0000000000000000000000000000000000000000000000000000000000000000"
    Then the answer is 404
