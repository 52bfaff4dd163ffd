import SampleFiles
import Sigma
import SigmaRequests
import Testing

/// Answers over HTTP: what clients rely on.
@Suite struct ServerAnswerTests {
    @Test func aChat() async throws {
        try await LiveServer.with { (server) async throws -> Void in
            let answer = try await server.chat(#""temperature":0"#)
            let choice = answer["choices"]?.array?[0]
            #expect(choice?["message"]?["content"]?.string == "347 + 586 = 933.")
            #expect(choice?["message"]?["reasoning_content"]?.string?.isEmpty == false)
            #expect(choice?["finish_reason"]?.string == "stop")
            #expect(answer["model"]?.string == "demo" && answer["object"]?.string == "chat.completion")
        }
    }

    /// Role first, then text, the reason, the usage and the end; put together it is the answer that is not streamed.
    @Test func aStreamAddsUpToTheAnswer() async throws {
        try await LiveServer.with { (server) async throws -> Void in
            let members = #""temperature":0.8,"seed":3,"stream":true,"stream_options":{"include_usage":true}"#
            let reply = try await server.post("/v1/chat/completions", LiveServer.body(members))
            #expect(reply.headers["content-type"] == "text/event-stream; charset=utf-8")
            let events = reply.events
            #expect(events.last == "[DONE]")
            let chunks = try events.dropLast().map { try JSONValue.parse($0) }
            #expect(chunks.first?["choices"]?.array?[0]["delta"]?["role"]?.string == "assistant")
            func text(_ field: String) -> String {
                chunks.compactMap { $0["choices"]?.array?.first?["delta"]?[field]?.string }.joined()
            }
            let whole = try await server.chat(#""temperature":0.8,"seed":3"#)
            let message = whole["choices"]?.array?[0]["message"]
            #expect(text("content") == message?["content"]?.string)
            #expect(text("reasoning_content") == message?["reasoning_content"]?.string)
            #expect(chunks.last?["choices"]?.array?.isEmpty == true)
            #expect(chunks.last?["usage"]?["completion_tokens"] == whole["usage"]?["completion_tokens"])
        }
    }

    /// Cold, warm, in company and with log-probabilities beside it: the bytes of an answer alone.
    @Test func theSameBytesInAnyCompany() async throws {
        let questions = (0..<6).map { "What is \(100 + 37 * $0) + \(586 - 11 * $0)?" }
        func answers(_ server: LiveServer, _ members: String) async throws -> [JSONValue] {
            try await withThrowingTaskGroup(of: (Int, JSONValue).self) { group in
                for (index, question) in questions.enumerated() {
                    group.addTask {
                        let answer = try await server.chat(
                            #""seed":\#(index),"max_tokens":40,"thinking_budget":60"# + members, question)
                        return (index, answer["choices"]!.array![0]["message"]!)
                    }
                }
                var messages = [JSONValue](repeating: .null, count: questions.count)
                for try await (index, message) in group { messages[index] = message }
                return messages
            }
        }
        for temperature in ["0", "0.9"] {
            let members = #","temperature":\#(temperature)"#
            let alone = try await LiveServer.with(
                { $0.parallel = 1 }, engine: LiveServer.makeEngine(threads: 1, prefixCacheBytes: 0)
            ) {
                try await answers($0, members)
            }
            try await LiveServer.with { (server) async throws -> Void in
                #expect(try await answers(server, members) == alone)
                let before = server.engine.prefixes.usage.foundTokens
                #expect(try await answers(server, members) == alone)
                #expect(server.engine.prefixes.usage.foundTokens > before, "the second time must be warm")
                let withOthers = try await answers(server, members + #","logprobs":true,"top_logprobs":3"#)
                #expect(withOthers == alone)
            }
            // A small cache loses and finds prefixes in other orders.
            let small = try LiveServer.makeEngine(prefixCacheBytes: 3_000_000)
            try await LiveServer.with({ $0.parallel = 3 }, engine: small) { (server) async throws -> Void in
                for _ in 0..<2 { #expect(try await answers(server, members) == alone) }
            }
        }
    }

    @Test func choicesAreSeeds() async throws {
        try await LiveServer.with { (server) async throws -> Void in
            let members = #""temperature":1.5,"top_k":0,"max_tokens":12,"enable_thinking":false"#
            let three = try await server.chat(members + #","seed":40,"n":3"#)
            for index in 0..<3 {
                let one = try await server.chat(members + #","seed":\#(40 + index)"#)
                #expect(
                    three["choices"]?.array?[index]["message"] == one["choices"]?.array?[0]["message"])
            }
            #expect(three["choices"]?.array?.map { $0["index"]!.integer } == [0, 1, 2])
        }
    }

    /// What lm-eval asks for: the same numbers again, from kept prefixes.
    @Test func anEchoIsScoredTheSameAgain() async throws {
        try await LiveServer.with { (server) async throws -> Void in
            func score(_ prompts: String) async throws -> [JSONValue] {
                let body =
                    #"{"prompt":\#(prompts),"temperature":0,"max_tokens":1,"logprobs":1,"echo":true,"seed":1234}"#
                let reply = try await server.post("/v1/completions", body)
                #expect(reply.status == 200, "\(reply.text)")
                return try reply.json()["choices"]!.array!.map { $0["logprobs"]! }
            }
            let (a, b) = ("[72,101,108,108,111,32,119]", "[72,101,108,108,111,33]")
            let cold = try await score("[\(a),\(b)]")
            let before = server.engine.prefixes.usage.foundTokens
            let warm = try await score("[\(a),\(b)]")
            #expect(warm == cold)
            #expect(server.engine.prefixes.usage.foundTokens - before >= 9)
            #expect(try await score("[\(b)]")[0] == cold[1])
        }
    }

    @Test func tokens() async throws {
        try await LiveServer.with { (server) async throws -> Void in
            let reply = try await server.post("/tokenize", #"{"prompt":"What is 12?","add_special_tokens":false}"#)
            let tokens = try #require(try reply.json()["tokens"]?.array)
            #expect(
                tokens.map { Int32($0.integer!) }
                    == server.engine.tokenizer!.encode("What is 12?", recognizingSpecials: true))
            let text = try await server.post("/detokenize", #"{"tokens":\#(tokens.map { $0.integer! })}"#)
            #expect(try text.json()["prompt"]?.string == "What is 12?")
            #expect(try await server.get("/tokenizer_info").json()["model_max_length"]?.integer ?? 0 > 0)
            #expect(try await server.post("/detokenize", #"{"tokens":[99999999]}"#).status == 400)
        }
    }

    @Test func models() async throws {
        try await LiveServer.with { (server) async throws -> Void in
            let list = try await server.get("/v1/models").json()
            #expect(list["data"]?.array?[0]["id"]?.string == "demo")
            #expect(try await server.get("/v1/models/demo").json()["id"]?.string == "demo")
            #expect(try await server.get("/v1/models/other").status == 404)
            let reply = try await server.post("/v1/chat/completions", LiveServer.body(#""model":"gpt-5""#))
            #expect(reply.status == 404 && reply.error?["code"]?.string == "model_not_found")
        }
    }
}
