import SampleFiles
import Sigma
import SigmaRequests
import Testing

/// Responses, Messages, the page and its description over HTTP. `Tests/ServerCheck` has the clients themselves.
@Suite struct ServerProtocolTests {
    private static func responses(_ members: String) -> String {
        #"{"input":"What is 347 + 586?","temperature":0\#(members)}"#
    }
    private static func messages(_ members: String) -> String {
        #"{"max_tokens":40,"messages":[{"role":"user","content":"What is 347 + 586?"}],"temperature":0\#(members)}"#
    }

    @Test func aResponse() async throws {
        try await LiveServer.with { (server) async throws -> Void in
            let reply = try await server.post("/v1/responses", Self.responses(""))
            #expect(reply.status == 200, "\(reply.text)")
            let response = try reply.json()
            let output = try #require(response["output"]?.array)
            #expect(output.map { $0["type"]?.string } == ["reasoning", "message"])
            #expect(output[1]["content"]?.array?[0]["text"]?.string == "347 + 586 = 933.")
            #expect(response["id"]?.string?.hasPrefix("resp_") == true && response["status"]?.string == "completed")
            let refused = try await server.post("/v1/responses", Self.responses(#","previous_response_id":"resp_1""#))
            #expect(refused.status == 400 && refused.error?["param"]?.string == "previous_response_id")
        }
    }

    @Test func aMessage() async throws {
        try await LiveServer.with { (server) async throws -> Void in
            let reply = try await server.post("/v1/messages", Self.messages(""))
            #expect(reply.status == 200, "\(reply.text)")
            let message = try reply.json()
            #expect(message["content"]?.array?.count == 1)
            // Thinking is off unless it is asked for.
            let chat = try await server.chat(#""temperature":0,"enable_thinking":false"#)
            #expect(message["content"]?.array?[0]["text"] == chat["choices"]?.array?[0]["message"]?["content"])
            #expect(message["stop_reason"]?.string == "end_turn")
            let stopped = try await server.post("/v1/messages", Self.messages(#","stop_sequences":["zz"," ="]"#)).json()
            #expect(stopped["stop_reason"]?.string == "stop_sequence" && stopped["stop_sequence"]?.string == " =")
            #expect(stopped["content"]?.array?[0]["text"]?.string == "347 + 586")
            let count = try await server.post("/v1/messages/count_tokens", Self.messages("")).json()
            let usage = try #require(message["usage"])
            #expect(
                count["input_tokens"]?.integer
                    == usage["input_tokens"]!.integer! + usage["cache_read_input_tokens"]!.integer!)
        }
    }

    /// Errors of a path have its protocol's form, whoever finds them.
    @Test func errorsInTheFormOfTheirPath() async throws {
        try await LiveServer.with({ $0.keys = ["k"] }) { (server) async throws -> Void in
            for path in ["/v1/messages", "/v1/messages/count_tokens"] {
                let noKey = try await server.post(path, Self.messages(""))
                #expect(noKey.status == 401 && noKey.error?["type"]?.string == "authentication_error")
                #expect(try noKey.json()["type"]?.string == "error")
                let refused = try await server.post(path, Self.messages(#","n":2"#), headers: ["x-api-key": "k"])
                #expect(refused.status == 400 && refused.error?["type"]?.string == "invalid_request_error")
                let unknown = try await server.post(path, Self.messages(#","model":"x""#), headers: ["x-api-key": "k"])
                #expect(unknown.status == 404 && unknown.error?["type"]?.string == "not_found_error")
            }
            let other = try await server.post("/v1/responses", Self.responses(""))
            #expect(other.status == 401 && other.error?["code"]?.string == "invalid_api_key")
        }
    }

    /// Random requests: what a stream's events put together is what the answer says that is not streamed.
    @Test func streamsAddUp() async throws {
        try await LiveServer.with { (server) async throws -> Void in
            var random = SplitMix64(state: 23)
            for _ in 0..<5 {
                let thinks = Bool.random(using: &random)
                let members =
                    #","temperature":0.9,"seed":\#(random.next() >> 40),"thinking_budget":\#(random.next() % 40)"#
                let response = Self.responses(
                    members.replacing(#","temperature":0.9"#, with: "")
                        + (thinks ? "" : #","reasoning":{"effort":"none"}"#) + #","max_output_tokens":20"#)
                try await expectSameResponse(server, response)
                let message = Self.messages(
                    members.replacing(#","temperature":0.9"#, with: "")
                        + (thinks ? #","thinking":{"type":"enabled"}"# : "") + #","stop_sequences":["9"]"#)
                try await expectSameMessage(server, message)
            }
        }
    }

    private func streamed(_ server: LiveServer, _ path: String, _ body: String) async throws -> [JSONValue] {
        let reply = try await server.post(path, String(body.dropLast()) + #","stream":true}"#)
        #expect(reply.headers["content-type"] == "text/event-stream; charset=utf-8")
        return try reply.text.split(separator: "\n").filter { $0.hasPrefix("data: ") }.map {
            try JSONValue.parse(String($0.dropFirst(6)))
        }
    }

    private func expectSameResponse(_ server: LiveServer, _ body: String) async throws {
        let whole = try await server.post("/v1/responses", body).json()
        let events = try await streamed(server, "/v1/responses", body)
        var texts: [String: String] = [:]
        for event in events {
            guard let type = event["type"]?.string, type.hasSuffix("_text.delta") else { continue }
            texts[type == "response.output_text.delta" ? "message" : "reasoning", default: ""] += event["delta"]!
                .string!
        }
        for item in try #require(whole["output"]?.array) {
            #expect(item["content"]?.array?[0]["text"]?.string == texts[item["type"]!.string!] ?? "")
        }
        let last = try #require(events.last?["response"])
        #expect(last["status"] == whole["status"])
        #expect(last["usage"]?["output_tokens"] == whole["usage"]?["output_tokens"])
        #expect(last["usage"]?["output_tokens_details"] == whole["usage"]?["output_tokens_details"])
    }

    private func expectSameMessage(_ server: LiveServer, _ body: String) async throws {
        let whole = try await server.post("/v1/messages", body).json()
        let events = try await streamed(server, "/v1/messages", body)
        var texts: [String: String] = [:]
        for delta in events.compactMap({ $0["delta"] }) {
            for key in ["text", "thinking"] { texts[key, default: ""] += delta[key]?.string ?? "" }
        }
        for block in try #require(whole["content"]?.array) {
            let type = block["type"]!.string!
            #expect(block[type]?.string == texts[type])
        }
        let end = try #require(events.first { $0["type"]?.string == "message_delta" })
        #expect(end["delta"]?["stop_reason"] == whole["stop_reason"])
        #expect(end["delta"]?["stop_sequence"] == whole["stop_sequence"])
        #expect(end["usage"]?["output_tokens"] == whole["usage"]?["output_tokens"])
        #expect(events.last?["type"]?.string == "message_stop")
    }

    /// A changing header of the client's bill does not keep the rest from being found.
    @Test func theBillingHeaderKeepsPrefixes() async throws {
        try await LiveServer.with { (server) async throws -> Void in
            func cached(_ number: Int) async throws -> Int64 {
                let system =
                    #","system":[{"type":"text","text":"x-anthropic-billing-header: cch=\#(number)"},{"type":"text","text":"Answer as briefly as you can."}]"#
                let message = try await server.post("/v1/messages", Self.messages(system)).json()
                return message["usage"]?["cache_read_input_tokens"]?.integer ?? -1
            }
            let (first, second) = (try await cached(1), try await cached(2))
            #expect(first == 0 && second > 10)
        }
    }

    @Test func thePage() async throws {
        try await LiveServer.with({ $0.keys = ["k"] }) { (server) async throws -> Void in
            let page = try await server.get("/")
            #expect(page.status == 200 && page.headers["content-type"] == "text/html; charset=utf-8")
            let policy = try #require(page.headers["content-security-policy"])
            #expect(policy.contains("default-src 'none'") && !policy.contains("unsafe"))
            let nonce = try #require(policy.firstMatch(of: /script-src 'nonce-([a-z0-9-]+)'/)?.1)
            #expect(
                page.text.contains("<script nonce=\"\(nonce)\">") && page.text.contains("<style nonce=\"\(nonce)\">"))
            #expect(!page.text.contains("NONCE"))
            let other = try await server.get("/").headers["content-security-policy"]
            #expect(other != policy, "a nonce is used once")
        }
    }

    private static let endpoints: Set = [
        "/", "/detokenize", "/health", "/metrics", "/openapi.json", "/readyz", "/tokenize", "/tokenizer_info",
        "/v1/chat/completions", "/v1/completions", "/v1/detokenize", "/v1/messages", "/v1/messages/count_tokens",
        "/v1/models", "/v1/models/{name}", "/v1/responses", "/v1/tokenize", "/v1/tokenizer_info",
    ]

    /// The description names every endpoint and nothing else, and its references lead somewhere.
    @Test func theDescription() async throws {
        try await LiveServer.with { (server) async throws -> Void in
            let document = try await server.get("/openapi.json").json()
            let paths = try #require(document["paths"]?.object)
            #expect(Set(paths.keys) == Self.endpoints)
            for (path, methods) in zip(paths.keys, paths.values) {
                let path = path.replacing("{name}", with: "default")
                for method in try #require(methods.object).keys {
                    let reply = try await server.send(
                        method.uppercased(), path, headers: ["content-type": "application/json"],
                        body: method == "post" ? "[]" : nil)
                    #expect(reply.status == (method == "post" ? 400 : 200), "\(method) \(path): \(reply.text)")
                }
            }
            func check(_ value: JSONValue) {
                if let reference = value["$ref"]?.string {
                    let target = reference.split(separator: "/").dropFirst().reduce(document as JSONValue?) {
                        $0?[String($1)]
                    }
                    #expect(target != nil, "\(reference)")
                }
                for part in value.array ?? value.object?.values ?? [] { check(part) }
            }
            check(document)
        }
    }
}
