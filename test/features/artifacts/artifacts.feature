Feature: Artifacts

  Background:
    Given a control plane with the pools:
      | pool | slots | replicas | speed |
      | chat | 2     | 1        | 50    |

  @ORCH-3097
  Scenario: An artifact is kept under the hash of its content, and given back as it came
    When I send POST "/v1/artifacts" with:
      """
      { "kind": "plan", "content": { "steps": ["a", "b"], "cost": 1.5 }, "tags": ["x"], "metadata": { "by": "me" } }
      """
    Then the answer is 201
    And the answer holds:
      | id         | /^sha256:[0-9a-f]{64}$/ |
      | digest     | /^sha256:[0-9a-f]{64}$/ |
      | kind       | plan                    |
      | created_ms | > 0                     |
    When I send GET "/v1/artifacts/{answer id}"
    Then the answer is 200
    And the answer holds:
      | kind          | plan |
      | content.steps | a, b |
      | tags          | x    |
      | metadata.by   | me   |

  @ORCH-3098
  Scenario: Kinds are a closed set, and a parent must be there
    When I send POST "/v1/artifacts" with:
      """
      { "kind": "song", "content": {} }
      """
    Then the answer is 400
    And the answer holds:
      | field | kind |
    When I send POST "/v1/artifacts" with:
      """
      { "kind": "diff", "content": {}, "parent": "sha256:0000000000000000000000000000000000000000000000000000000000000000" }
      """
    Then the answer is 400
    And the answer holds:
      | field | parent |
    When I send POST "/v1/artifacts" with:
      """
      { "kind": "plan", "content": { "of": "a line" } }
      """
    And I send POST "/v1/artifacts" with:
      """
      { "kind": "diff", "content": { "of": "a line" }, "tags": ["child"], "parent": "{answer id}" }
      """
    Then the answer is 201
    When I send GET "/v1/artifacts/{answer id}"
    Then the answer holds:
      | kind   | diff                    |
      | parent | /^sha256:[0-9a-f]{64}$/ |
      | tags   | child                   |

  @ORCH-3097
  Scenario: What nobody kept is not found
    When I send GET "/v1/artifacts/sha256:0000000000000000000000000000000000000000000000000000000000000000"
    Then the answer is 404
