Feature: Catalog of models
  What may be served, from where, and whether it is what it was promised to be.

  @ORCH-3037 @ORCH-3060 @ORCH-3061 @ORCH-3062 @ORCH-3063 @ORCH-3064 @ORCH-3065
  Scenario: A model is registered with all that is known of it, read back, and taken out
    Given a control plane with the pools:
      | pool | slots | replicas | speed |
      | chat | 2     | 1        | 50    |
    When I send POST "/v1/catalog/models" with:
      """
      { "id": "writer", "digest": "sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd",
        "source_url": "hf:someone/writer/q4.gguf", "tags": ["chat"],
        "manifests": [{ "digest": "sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd", "size_bytes": 42 }],
        "signatures": [{ "signer": "someone", "algo": "ecdsa", "verified": true }],
        "sbom": { "uri": "https://example.org/sbom" },
        "trust_policy": { "mode": "permissive", "require_sbom": true } }
      """
    Then the answer is 201
    When I send GET "/v1/catalog/models/writer"
    Then the answer is 200
    And the answer holds:
      | digest                  | /^sha256:d{64}$/          |
      | source_url              | hf:someone/writer/q4.gguf |
      | tags                    | chat                      |
      | manifests[0].size_bytes | 42                        |
      | signatures[0].signer    | someone                   |
      | signatures[0].verified  | false                     |
      | sbom.uri                | https://example.org/sbom  |
      | trust_policy.require_sbom | true                    |
    When I send DELETE "/v1/catalog/models/writer"
    Then the answer is 204
    When I send GET "/v1/catalog/models/writer"
    Then the answer is 404

  @ORCH-3069 @ORCH-3070 @ORCH-3071
  Scenario: A model is verified by its file: warned of for want of signatures, failed for another digest
    Given a model file "m.gguf"
    And the section "catalog":
      """
      model_roots: ["{folder of m.gguf}"]
      """
    And a control plane with the pools:
      | pool | slots |
      | chat | 2     |
    When I send POST "/v1/catalog/models" with:
      """
      { "id": "right", "digest": "{digest of m.gguf}", "source_url": "file:{path of m.gguf}" }
      """
    And I send POST "/v1/catalog/models/right/verify" with:
      """
      {}
      """
    Then the answer is 202
    And the answer holds:
      | status           | warned   |
      | warnings[0].code | UNSIGNED |
    When I send POST "/v1/catalog/models" with:
      """
      { "id": "wrong", "digest": "sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd", "source_url": "file:{path of m.gguf}" }
      """
    And I send POST "/v1/catalog/models/wrong/verify" with:
      """
      {}
      """
    Then the answer is 400
    And the answer holds:
      | code | UNTRUSTED_ARTIFACT |
    And the metrics have grown by:
      | catalog_verifications_total | result=FAILED, reason=DIGEST_MISMATCH | 1 |
      | catalog_verifications_total | result=WARNED, reason=UNSIGNED        | 1 |

  @ORCH-3073 @ORCH-3074
  Scenario: A retired model takes no new task, and takes them again when it is active
    Given a control plane with the pools:
      | pool | slots | replicas | speed |
      | chat | 2     | 1        | 50    |
    When I send POST "/v1/catalog/models" with:
      """
      { "id": "chat-7b", "digest": "sha256:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee" }
      """
    And I send POST "/v1/catalog/models/chat-7b/state" with:
      """
      { "state": "Retired" }
      """
    Then the answer is 202
    When I try to submit "a" to "chat"
    Then the answer is 410
    And the answer holds:
      | code | MODEL_DEPRECATED |
    And the metrics come to hold:
      | model_state | model_id=chat-7b, state=Retired | 1 |
    When I send POST "/v1/catalog/models/chat-7b/state" with:
      """
      { "state": "Active" }
      """
    And I submit "b" to "chat"
    Then "b" ends

  @ORCH-3072
  Scenario: A strict policy refuses what is unsigned or unknown
    Given the section "catalog":
      """
      trust_policy: { mode: strict }
      """
    And a control plane with the pools:
      | pool | slots |
      | chat | 2     |
    When I try to submit "a" to "chat"
    Then the answer is 400
    And the answer holds:
      | code  | UNTRUSTED_ARTIFACT |
      | field | model_ref          |
    When I send POST "/v1/catalog/models" with:
      """
      { "id": "chat-7b", "digest": "sha256:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee", "signatures": [{ "signer": "someone" }] }
      """
    And I submit "b" to "chat"
    Then "b" ends

  @ORCH-3066 @own
  Scenario: The catalog outlives the control plane
    Given a control plane with the pools:
      | pool | slots |
      | chat | 2     |
    When I send POST "/v1/catalog/models" with:
      """
      { "id": "kept", "digest": "sha256:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee", "tags": ["old"] }
      """
    Then the answer is 201
    When the control plane is stopped, and one is started over its database with the pools:
      | pool | slots |
      | chat | 2     |
    And I send GET "/v1/catalog/models/kept"
    Then the answer is 200
    And the answer holds:
      | tags | old |
