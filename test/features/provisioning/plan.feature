Feature: Provisioning
  What would be done to have an engine here is told before it is done, and nothing is reached that policy does not name.

  @ORCH-3201 @ORCH-3207 @OC-CONFIG-6021
  Scenario: The plan of a source build names each command
    When I run "plan" with the configuration:
      """
      gpu: { mode: simulated, devices: [{ name: Big, memory_bytes: 25769803776 }] }
      network: { allow_hosts: [github.com] }
      pools:
        - id: built
          engine: llamacpp
          model: m.gguf
          devices: [0]
          provisioning:
            mode: source
            source: { repo: "https://github.com/ggml-org/llama.cpp", ref: b4321, build: { cmake_flags: [-DGGML_CUDA=ON] } }
      """
    Then it says "built: llamacpp, mode source, from https://github.com/ggml-org/llama.cpp@b4321"
    And it says "fetch --depth 1 origin b4321"
    And it says "-DGGML_CUDA=ON"
    And it says "--target llama-server"

  @ORCH-3080 @ORCH-3206 @ORCH-3204
  Scenario: A download that no policy allows is an obstacle with a fix
    When I run "plan" with the configuration:
      """
      gpu: { mode: simulated, devices: [{ name: Big, memory_bytes: 25769803776 }] }
      pools:
        - id: fetched
          engine: llamacpp
          model: m.gguf
          devices: [0]
          provisioning:
            mode: binary
            binary: { url: "https://example.org/llama-server", checksum: "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }
      """
    Then it exits with 1
    And it says "allow_binary_downloads"

  @OC-CONFIG-6020 @OC-CONFIG-6024
  Scenario: A binary from the network needs its checksum
    When I run "plan" with the configuration:
      """
      pools:
        - id: fetched
          engine: llamacpp
          model: m.gguf
          provisioning: { mode: binary, binary: { url: "https://example.org/llama-server" } }
      """
    Then it exits with 1
    And it says "checksum"

  @OC-CONFIG-6020
  Scenario: A mode needs its section
    When I run "plan" with the configuration:
      """
      pools:
        - id: boxed
          engine: llamacpp
          model: m.gguf
          provisioning: { mode: container }
      """
    Then it exits with 1
    And it says "pools[0].provisioning.container  is missing: provisioning.mode is container"

  @ORCH-3201 @OC-CONFIG-6022
  Scenario: A container is named by its digest
    When I run "plan" with the configuration:
      """
      network: { allow_hosts: [ghcr.io] }
      pools:
        - id: boxed
          engine: llamacpp
          model: m.gguf
          provisioning: { mode: container, allow_binary_downloads: true, container: { image: "ghcr.io/ggml-org/llama.cpp@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" } }
        - id: loose
          engine: llamacpp
          model: m.gguf
          provisioning: { mode: container, allow_binary_downloads: true, container: { image: "ghcr.io/ggml-org/llama.cpp:server" } }
      """
    Then it exits with 1
    And it says "container_pull: pull ghcr.io/ggml-org/llama.cpp@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    And it says "UNPINNED: the image ghcr.io/ggml-org/llama.cpp:server is not pinned by its digest"

  @ORCH-3201 @OC-CONFIG-6023
  Scenario: A package is left to the operator, with the line to paste
    When I run "plan" with the configuration:
      """
      pools:
        - id: packed
          engine: vllm
          model: org/model
          provisioning: { mode: package, allow_package_installs: true, package: { name: vllm, version: "0.23.0" } }
      """
    Then it exits with 1
    And it says "packed: vllm, mode package, from vllm==0.23.0"
    And it says "bin/pip install vllm==0.23.0"

  @ORCH-3201 @OC-CONFIG-6025
  Scenario: For an external engine nothing is done, and its endpoint must be known
    When I run "plan" with the configuration:
      """
      pools:
        - { id: far, engine: llamacpp, model: m, endpoint: "http://127.0.0.1:9", provisioning: { mode: external } }
      """
    Then it exits with 0
    And it says "far: llamacpp, mode external"
    And it says "nothing to do"
    When I run "plan" with the configuration:
      """
      pools:
        - { id: far, engine: llamacpp, model: m, provisioning: { mode: external } }
      """
    Then it exits with 1
    And it says "pools[0].endpoint  is missing"

  @ORCH-3201 @ORCH-3207
  Scenario: A plan that can be carried out says so by its exit
    Given a model file "m.gguf"
    When I run "plan" with the configuration:
      """
      pools:
        - { id: own, engine: llamacpp, model: "{path of m.gguf}", provisioning: { mode: binary, binary: { url: "file:///bin/sleep" } } }
      """
    Then it exits with 0
    And it says "check_binary: check that /bin/sleep can be run"

  @OC-CONFIG-6027
  Scenario: A key that nobody knows is refused with its path
    When I run "plan" with the configuration:
      """
      pools:
        - id: chat
          engine: llamacpp
          model: m
          modle: typo
          provisioning: { mode: simulated }
      """
    Then it exits with 1
    And it says "pools[0].modle"

  @ORCH-3204 @ORCH-3091 @long
  Scenario: A pool whose model is not there says what to do
    Given a control plane configured as:
      """
      gpu: { mode: simulated, devices: [{ name: Big, memory_bytes: 25769803776 }] }
      pools:
        - id: missing
          engine: llamacpp
          model: /nowhere/model.gguf
          devices: [0]
          provisioning: { mode: binary, binary: { url: "file:///bin/sleep" } }
      """
    Then the pool "missing" shows:
      | ready                       | false  |
      | lastError.code              | MODEL_MISSING |
      | lastError.fix               | any    |
    When I try to submit "a" to "missing" with:
      | model_ref | /nowhere/model.gguf |
    Then the answer is 503
    And the answer holds:
      | code      | POOL_UNREADY                   |
      | message   | /does not exist.*Put the model there/ |
      | retriable | true                           |
