Feature: Access

  @AUTH-1002
  Scenario: An address that others can reach needs a token, or nothing is started
    Given the environment:
      | ORCHD_ADDR   | 0.0.0.0:0                         |
      | DATABASE_URL | postgresql://nobody@127.0.0.1:1/x |
    When I run "serve" with the configuration:
      """
      gpu: { mode: simulated, devices: [{ name: Big, memory_bytes: 25769803776 }] }
      pools: [{ id: chat, engine: llamacpp, model: m, devices: [0], provisioning: { mode: simulated } }]
      """
    Then it exits with 1
    And it says "NON_LOOPBACK_WITHOUT_TOKEN"
    And it says "40301"

  @AUTH-1001 @AUTH-1007 @AUTH-1008
  Scenario Outline: Where a token is set it is asked for at every door, as a bearer or as an API key: <door>
    Given the environment:
      | AUTH_TOKEN | a-long-and-secret-token |
    And a control plane with the pools:
      | pool | slots |
      | chat | 2     |
    When I send <method> "<path>"
    Then the answer is 401
    And the answer has the headers:
      | www-authenticate | Bearer |
    And the answer holds:
      | <error> | MISSING_TOKEN |
      | <code>  | 40101         |
    When I send <method> "<path>" with the headers:
      | Authorization | Bearer wrong |
      | Accept        | <accept>     |
    Then the answer is 401
    And the answer holds:
      | <error> | BAD_TOKEN |
      | <code>  | 40102     |
    When I send <method> "<path>" with the headers:
      | Authorization | Bearer a-long-and-secret-token |
      | Accept        | <accept>                       |
    Then the answer is <status>
    When I send <method> "<path>" with the headers:
      | X-API-Key | a-long-and-secret-token |
      | Accept    | <accept>                |
    Then the answer is <status>

    Examples:
      | door            | method | path                                                  | accept            | status | error                     | code |
      | REST, to read   | GET    | /v1/capabilities                                      | */*               | 200    | error                     | code |
      | REST, to change | POST   | /v1/pools/nope/drain                                  | */*               | 400    | error                     | code |
      | streams         | GET    | /v1/tasks/00000000-0000-0000-0000-000000000001/stream | */*               | 404    | error                     | code |
      | the registry    | GET    | /pools/chat/status                                    | */*               | 200    | error                     | code |
      | metrics         | GET    | /metrics                                              | */*               | 200    | error                     | code |
      | GraphQL         | GET    | /graphql?query={__typename}                           | application/json  | 200    | errors[0].extensions.code | errors[0].extensions.number |
      | GraphQL streams | GET    | /graphql?query=subscription{taskEvents(taskId:%2200000000-0000-0000-0000-000000000001%22){seq}} | text/event-stream | 200    | errors[0].extensions.code | errors[0].extensions.number |

  @AUTH-1003 @long
  Scenario: AUTH_OPTIONAL frees callers of this machine
    Given the environment:
      | AUTH_TOKEN    | a-long-and-secret-token |
      | AUTH_OPTIONAL | true                    |
    And a control plane with the pools:
      | pool | slots |
      | chat | 2     |
    When I send GET "/v1/capabilities"
    Then the answer is 200
    When I send GET "/v1/capabilities" with the headers:
      | Authorization | Bearer wrong |
    Then the answer is 401

  @AUTH-1005 @OC-CTRL-2041
  Scenario: The log says who asked, by localhost or by a fingerprint, and nothing that is written has the token
    Given the environment:
      | AUTH_TOKEN    | a-long-and-secret-token |
      | AUTH_OPTIONAL | true                    |
    And a control plane with the pools:
      | pool | slots |
      | chat | 2     |
    When I submit "named" to "chat" with:
      | Authorization | Bearer a-long-and-secret-token |
    And I submit "unnamed" to "chat" with:
      | Authorization | none |
    And I try to submit "refused" to "chat" with:
      | Authorization | Bearer a-long-and-secret-token |
      | model_ref     | nobody-serves-it               |
    Then the answer is 400
    When I send GET "/v1/a-long-and-secret-token"
    Then the answer is 404
    When I send GET "/v1/capabilities" with the headers:
      | Authorization | Bearer not-the-secret-token |
    Then the answer is 401
    And "named" and "unnamed" end
    And a log line tells:
      | job_id   | {id of named}          |
      | msg      | task admitted          |
      | identity | /^token:[0-9a-f]{6}$/  |
    And a log line tells:
      | job_id   | {id of unnamed} |
      | msg      | task admitted   |
      | identity | localhost       |
    And a log line tells:
      | job_id   | {id of refused}        |
      | code     | INVALID_PARAMS         |
      | identity | /^token:[0-9a-f]{6}$/  |
    And nothing that was written holds "a-long-and-secret-token"
    And nothing that was written holds "not-the-secret-token"

  @OC-CTRL-2070
  Scenario: Pages of other origins are refused
    Given the environment:
      | AUTH_TOKEN    | a-long-and-secret-token |
      | AUTH_OPTIONAL | true                    |
    And a control plane with the pools:
      | pool | slots |
      | chat | 2     |
    When I send POST "/v1/pools/chat/drain" with the headers:
      | Origin       | http://evil.example |
      | Content-Type | application/json    |
    Then the answer is 403
    And the answer holds:
      | error | BAD_ORIGIN |
    And the answer has the headers:
      | access-control-allow-origin | absent |

  @AUTH-1003 @AUTH-1006 @long
  Scenario Outline: Whom a proxy forwards is let in only where the proxy is trusted: <setting>
    Given the environment:
      | AUTH_TOKEN | a-long-and-secret-token |
      | <setting>  | true                    |
    And a control plane with the pools:
      | pool | slots |
      | chat | 2     |
    When I send GET "/v1/capabilities" with the headers:
      | X-Forwarded-For | 203.0.113.9 |
    Then the answer is <forwarded>
    When I send GET "/v1/capabilities"
    Then the answer is <local>

    Examples:
      | setting          | forwarded | local |
      | TRUST_PROXY_AUTH | 200       | 401   |
      | AUTH_OPTIONAL    | 401       | 200   |
