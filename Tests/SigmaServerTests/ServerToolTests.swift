import Foundation
import SampleFiles
import Sigma
import SigmaRequests
import Testing

/// Functions over HTTP: calls that are asked for, in every protocol, and bodies that are hostile.
@Suite struct ServerToolTests {
    private static let schema =
        #"{"type":"object","properties":{"city":{"type":"string","maxLength":6},"days":{"type":"integer","minimum":1,"maximum":9}},"required":["city"],"additionalProperties":false}"#
    private static let question = #"{"role":"user","content":"What is 347 + 586?"}"#
    private static let chatTools =
        #""tools":[{"type":"function","function":{"name":"weather","parameters":\#(schema)}},{"type":"function","function":{"name":"now"}}]"#
    private static let responsesTools =
        #""tools":[{"type":"function","name":"weather","parameters":\#(schema)},{"type":"function","name":"now"}]"#
    private static let messagesTools =
        #""tools":[{"name":"weather","input_schema":\#(schema)},{"name":"now","input_schema":{"type":"object","properties":{},"additionalProperties":false}}]"#

    private static func chat(_ members: String) -> String { #"{"messages":[\#(question)],\#(chatTools),\#(members)}"# }
    private static func responses(_ members: String) -> String {
        #"{"input":[\#(question)],\#(responsesTools),\#(members)}"#
    }
    private static func messages(_ members: String) -> String {
        #"{"max_tokens":120,"messages":[\#(question)],\#(messagesTools),\#(members)}"#
    }

    private struct Call: Equatable {
        var name: String
        /// JSON.
        var arguments: String

        /// Whether a schema's reader would take it.
        func check() throws {
            let arguments = try #require(try JSONValue.parse(arguments).object)
            if name == "now" {
                #expect(arguments.count == 0)
            } else {
                #expect(name == "weather" && arguments.keys.first == "city" && arguments.count <= 2)
                #expect(try #require(arguments["city"]?.string).unicodeScalars.count <= 6)
                if let days = arguments["days"] { #expect((1...9).contains(days.integer ?? 0)) }
            }
        }
    }

    private func data(_ reply: HTTPReply) throws -> [JSONValue] {
        #expect(reply.status == 200, "\(reply.text)")
        return try reply.text.split(separator: "\n").filter { $0.hasPrefix("data: {") }.map {
            try JSONValue.parse(String($0.dropFirst(6)))
        }
    }

    private func streamed(_ body: String) -> String { String(body.dropLast()) + #","stream":true}"# }

    // MARK: - Calls that are asked for

    /// Greedy and hot: every call is one that the functions take, the stream has the same calls, and so do all protocols.
    @Test(arguments: [(0, 1), (1.5, 7), (1.5, 8), (1.5, 9)]) func requiredCalls(temperature: Double, seed: Int)
        async throws
    {
        let sampling = #""temperature":\#(temperature),"seed":\#(seed)"#
        try await LiveServer.with { (server) async throws -> Void in
            let body = Self.chat(
                #"\#(sampling),"tool_choice":"required","parallel_tool_calls":false,"enable_thinking":false,"max_tokens":120"#
            )
            let reply = try await server.post("/v1/chat/completions", body)
            #expect(reply.status == 200, "\(reply.text)")
            let choice = try #require(try reply.json()["choices"]?.array?[0])
            let calls = try #require(choice["message"]?["tool_calls"]?.array)
            #expect(calls.count == 1 && choice["message"]?["content"]?.string == "")
            #expect(choice["finish_reason"]?.string == "tool_calls")
            #expect(calls[0]["id"]?.string?.hasPrefix("call_") == true && calls[0]["type"]?.string == "function")
            let call = Call(
                name: try #require(calls[0]["function"]?["name"]?.string),
                arguments: try #require(calls[0]["function"]?["arguments"]?.string))
            try call.check()
            // The stream.
            var pieces = Call(name: "", arguments: "")
            let chunks = try data(try await server.post("/v1/chat/completions", streamed(body)))
            for chunk in chunks {
                let delta = chunk["choices"]?.array?[0]["delta"]
                #expect((delta?["content"]?.string ?? "") == "")
                for piece in delta?["tool_calls"]?.array ?? [] {
                    pieces.name += piece["function"]?["name"]?.string ?? ""
                    pieces.arguments += piece["function"]?["arguments"]?.string ?? ""
                }
            }
            #expect(pieces == call)
            #expect(chunks.last?["choices"]?.array?[0]["finish_reason"]?.string == "tool_calls")
            // The other protocols.
            let response = try await server.post(
                "/v1/responses",
                Self.responses(
                    #"\#(sampling),"tool_choice":"required","parallel_tool_calls":false,"reasoning":{"effort":"none"},"max_output_tokens":120"#
                )
            ).json()
            let item = try #require(response["output"]?.array?[0])
            #expect(item["type"]?.string == "function_call" && response["status"]?.string == "completed")
            #expect(item["name"]?.string == call.name && item["arguments"]?.string == call.arguments)
            let message = Self.messages(
                #"\#(sampling),"tool_choice":{"type":"any","disable_parallel_tool_use":true}"#)
            let block = try await server.post("/v1/messages", message).json()
            try Call(
                name: try #require(block["content"]?.array?[0]["name"]?.string, "\(block.text)"),
                arguments: try #require(block["content"]?.array?[0]["input"]).text
            ).check()
            #expect(block["stop_reason"]?.string == "tool_use")
            var json = ""
            for event in try data(try await server.post("/v1/messages", streamed(message))) {
                json += event["delta"]?["partial_json"]?.string ?? ""
            }
            #expect(try JSONValue.parse(json) == block["content"]?.array?[0]["input"])
        }
    }

    @Test func aNamedCallBehindThinking() async throws {
        try await LiveServer.with { (server) async throws -> Void in
            for (name, choice) in [
                ("now", #"{"type":"function","function":{"name":"now"}}"#),
                ("weather", #"{"type":"function","function":{"name":"weather"}}"#),
            ] {
                let answer = try await server.post(
                    "/v1/chat/completions",
                    Self.chat(#""temperature":1.5,"seed":4,"thinking_budget":20,"tool_choice":\#(choice)"#)
                ).json()
                let message = try #require(answer["choices"]?.array?[0]["message"])
                #expect(message["reasoning_content"]?.string?.isEmpty == false)
                #expect(message["tool_calls"]?.array?.map { $0["function"]?["name"]?.string } == [name])
                let arguments = try #require(message["tool_calls"]?.array?[0]["function"]?["arguments"]?.string)
                if name == "now" { #expect(try JSONValue.parse(arguments).object?.count == 0) }
            }
        }
    }

    /// An answer that may call and does not is the text that it would be; whoever asks for none gets none.
    @Test func answersWithoutCalls() async throws {
        try await LiveServer.with { (server) async throws -> Void in
            var texts: [String?] = []
            for choice in [#""auto""#, #""none""#] {
                let answer = try await server.post(
                    "/v1/chat/completions", Self.chat(#""temperature":0,"max_tokens":60,"tool_choice":\#(choice)"#)
                ).json()
                let first = try #require(answer["choices"]?.array?[0])
                #expect(first["message"]?["tool_calls"] == nil)
                texts.append(first["message"]?["content"]?.string)
            }
            #expect(texts[0] == texts[1] && texts[0]?.isEmpty == false)
        }
    }

    /// A model that calls in the middle of its text: the text, and each of the calls, in one piece and streamed.
    @Test func callsOfTheModelsOwnWill() async throws {
        let model = try LiveServer.model.get()
        let backend = DictatingBackend(try CPUBackend(model: model, threadCount: 2))
        let engine = try Engine(model: model, backend: backend)
        let calls = [
            Call(name: "weather", arguments: #"{"city": "Oslo", "days": 3}"#), Call(name: "now", arguments: "{}"),
        ]
        let written = calls.map {
            "<tool_call>\n{\"name\": \"\($0.name)\", \"arguments\": \($0.arguments)}\n</tool_call>"
        }
        try await LiveServer.with(engine: engine) { (server) async throws -> Void in
            let tokenizer = try #require(engine.tokenizer)
            let body = Self.chat(#""temperature":0,"enable_thinking":false,"max_tokens":200"#)
            let usage = try await server.post("/v1/chat/completions", body).json()["usage"]
            backend.dictate(
                tokenizer.encode("I look.\n" + written.joined(separator: "\n"), recognizingSpecials: true)
                    + [try #require(engine.stopTokens.min())],
                from: try #require(usage?["prompt_tokens"]?.integer.map { Int($0) }))
            let answer = try await server.post("/v1/chat/completions", body).json()
            let choice = try #require(answer["choices"]?.array?[0])
            #expect(choice["finish_reason"]?.string == "tool_calls")
            #expect(choice["message"]?["content"]?.string?.hasPrefix("I look.") == true)
            let told = (choice["message"]?["tool_calls"]?.array ?? []).compactMap { $0["function"] }
            #expect(told.map { $0["name"]?.string } == calls.map(\.name))
            for (call, told) in zip(calls, told) {
                let arguments = try #require(told["arguments"]?.string)
                try Call(name: call.name, arguments: arguments).check()
                #expect(try JSONValue.parse(arguments).promptText == JSONValue.parse(call.arguments).promptText)
            }
            var (text, pieces) = ("", [Call]())
            for chunk in try data(try await server.post("/v1/chat/completions", streamed(body))) {
                let delta = chunk["choices"]?.array?.first?["delta"]
                text += delta?["content"]?.string ?? ""
                for part in delta?["tool_calls"]?.array ?? [] {
                    if let name = part["function"]?["name"]?.string { pieces.append(Call(name: name, arguments: "")) }
                    pieces[pieces.count - 1].arguments += part["function"]?["arguments"]?.string ?? ""
                }
            }
            #expect(text == choice["message"]?["content"]?.string)
            #expect(
                pieces == told.map { Call(name: $0["name"]!.string!, arguments: $0["arguments"]!.string!) })
            // No call begins where none may.
            let none = try await server.post(
                "/v1/chat/completions", String(body.dropLast()) + #","tool_choice":"none"}"#
            ).json()
            let message = none["choices"]?.array?[0]["message"]
            #expect(message?["content"]?.string?.contains("<tool_call>") == false && message?["tool_calls"] == nil)
        }
    }

    /// With a format beside functions an answer is calls or fits the format, in three protocols, whole and streamed, with thinking before it and without.
    @Test func callsOrAFormat() async throws {
        let format =
            #"{"type":"object","properties":{"sum":{"type":"integer","minimum":0,"maximum":999}},"required":["sum"],"additionalProperties":false}"#
        func check(_ content: String, _ calls: [Call], isComplete: Bool) throws {
            for call in calls { try call.check() }
            guard calls.isEmpty, isComplete else { return #expect(content.isEmpty || !isComplete) }
            let object = try #require(try JSONValue.parse(content).object, "\(content)")
            #expect(object.keys == ["sum"] && (0...999).contains(object.values[0].integer ?? -1))
        }
        try await LiveServer.with { (server) async throws -> Void in
            let tag = server.engine.tokenizer!.encode("<tool_call>", recognizingSpecials: false)[0]
            var ways: Set<Bool> = []
            for seed in 0..<8 {
                // Calls are likely in every second answer.
                let sampling =
                    #""temperature":1.5,"top_k":0,"top_p":1,"seed":\#(seed),"logit_bias":{"\#(tag)":\#(seed % 2 == 0 ? 60 : -60)}"#
                let thinking = seed % 4 < 2
                let body = Self.chat(
                    #"\#(sampling),"max_tokens":150,"enable_thinking":\#(thinking),"thinking_budget":20,"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":\#(format)}}"#
                )
                let reply = try await server.post("/v1/chat/completions", body)
                #expect(reply.status == 200, "\(reply.text)")
                let choice = try #require(try reply.json()["choices"]?.array?[0])
                let message = try #require(choice["message"])
                #expect((message["reasoning_content"] != nil) == thinking)
                let calls = (message["tool_calls"]?.array ?? []).map {
                    Call(name: $0["function"]!["name"]!.string!, arguments: $0["function"]!["arguments"]!.string!)
                }
                let content = message["content"]?.string ?? ""
                let isComplete = choice["finish_reason"]?.string != "length"
                try check(content, calls, isComplete: isComplete)
                if isComplete { ways.insert(calls.isEmpty) }
                // The stream.
                var (text, pieces) = ("", [Call]())
                for chunk in try data(try await server.post("/v1/chat/completions", streamed(body))) {
                    let delta = chunk["choices"]?.array?[0]["delta"]
                    text += delta?["content"]?.string ?? ""
                    for piece in delta?["tool_calls"]?.array ?? [] {
                        if let name = piece["function"]?["name"]?.string {
                            pieces.append(Call(name: name, arguments: ""))
                        }
                        pieces[pieces.count - 1].arguments += piece["function"]?["arguments"]?.string ?? ""
                    }
                }
                #expect(text == content && Array(pieces.prefix(calls.count)) == calls)
                // The same request in the other protocols.
                let response = try await server.post(
                    "/v1/responses",
                    Self.responses(
                        #"\#(sampling),"max_output_tokens":150,"enable_thinking":\#(thinking),"thinking_budget":20,"text":{"format":{"type":"json_schema","name":"n","schema":\#(format)}}"#
                    )
                ).json()
                let items = try #require(response["output"]?.array, "\(response.text)")
                #expect(
                    items.filter { $0["type"]?.string == "function_call" }.map { $0["arguments"]?.string }
                        == calls.map(\.arguments))
                let told = items.first { $0["type"]?.string == "message" }?["content"]?.array?[0]["text"]?.string
                #expect((told ?? "") == content)
                let block = try await server.post(
                    "/v1/messages",
                    Self.messages(
                        #"\#(sampling),"output_config":{"format":{"type":"json_schema","schema":\#(format)}}"#)
                ).json()
                let blocks = try #require(block["content"]?.array, "\(block.text)")
                try check(
                    blocks.first { $0["type"]?.string == "text" }?["text"]?.string ?? "",
                    blocks.filter { $0["type"]?.string == "tool_use" }.map {
                        Call(name: $0["name"]!.string!, arguments: $0["input"]!.text)
                    }, isComplete: block["stop_reason"]?.string != "max_tokens")
            }
            #expect(ways.count == 2, "\(ways)")
        }
    }

    /// An answer that its limit cuts within a call has no call.
    @Test func aHalfCallIsNone() async throws {
        try await LiveServer.with { (server) async throws -> Void in
            // Within the tag, and behind it.
            for limit in [9, 30] {
                let reply = try await server.post(
                    "/v1/chat/completions",
                    Self.chat(
                        #""temperature":0,"tool_choice":"required","max_tokens":\#(limit),"enable_thinking":false"#))
                let choice = try #require(try reply.json()["choices"]?.array?[0])
                #expect(choice["finish_reason"]?.string == "length" && choice["message"]?["tool_calls"] == nil)
                #expect(choice["message"]?["content"]?.string == "")
                let response = try await server.post(
                    "/v1/responses",
                    Self.responses(
                        #""temperature":0,"tool_choice":"required","max_output_tokens":\#(limit),"reasoning":{"effort":"none"}"#
                    )
                ).json()
                #expect(response["status"]?.string == "incomplete" && !response["output"]!.text.contains("tool_call"))
                let message = try await server.post(
                    "/v1/messages",
                    Self.messages(#""temperature":0,"tool_choice":{"type":"any"}"#).replacing(
                        "\"max_tokens\":120", with: "\"max_tokens\":\(limit)")
                ).json()
                #expect(message["stop_reason"]?.string == "max_tokens")
                #expect(!message["content"]!.text.contains("tool_"), "\(message.text)")
            }
        }
    }

    /// The same bytes alone and in company, with log-probabilities and without.
    @Test func theSameCallsInAnyCompany() async throws {
        let bodies = (0..<6).map {
            Self.chat(
                #""temperature":1.5,"seed":\#($0),"tool_choice":"required","max_tokens":80,"enable_thinking":false"#)
        }
        try await LiveServer.with { (server) async throws -> Void in
            func message(_ body: String) async throws -> JSONValue? {
                let answer = try await server.post("/v1/chat/completions", body).json()
                return answer["choices"]?.array?[0]["message"].map { message in
                    // Ids are the answer's own.
                    .array((message["tool_calls"]?.array ?? []).compactMap { $0["function"] })
                }
            }
            var alone: [JSONValue?] = []
            for body in bodies { alone.append(try await message(body)) }
            let together = try await withThrowingTaskGroup(of: (Int, JSONValue?).self) { group in
                for (index, body) in bodies.enumerated() {
                    let scored = index % 2 == 0 ? body : String(body.dropLast()) + #","logprobs":true}"#
                    group.addTask { (index, try await message(scored)) }
                }
                var all = [JSONValue?](repeating: nil, count: bodies.count)
                for try await (index, message) in group { all[index] = message }
                return all
            }
            #expect(alone == together)
        }
    }

    // MARK: - Hostile and real bodies

    @Test func hostileFunctions() async throws {
        try await LiveServer.with { (server) async throws -> Void in
            func status(_ tools: String, _ more: String = "") async throws -> Int {
                let reply = try await server.post(
                    "/v1/chat/completions",
                    #"{"messages":[\#(Self.question)],"max_tokens":3,"enable_thinking":false,"tools":[\#(tools)]\#(more)}"#
                )
                if reply.status != 200 { #expect(reply.error?["message"]?.string?.isEmpty == false) }
                return reply.status
            }
            func function(_ name: String, _ schema: String, _ more: String = "") -> String {
                #"{"type":"function","function":{"name":"\#(name)","parameters":\#(schema)\#(more)}}"#
            }
            for name in ["", "a b", "a\\nb", "</tool_call>", "\\u0000", "é", String(repeating: "a", count: 10_000)] {
                #expect(try await status(function(name, "{}")) == 400)
            }
            #expect(try await status(function("a", "{}") + "," + function("a", "{}")) == 400)
            let many = (0..<500).map { function("f\($0)", #"{"type":"object","properties":{"p":{"type":"integer"}}}"#) }
            let long = try await server.post(
                "/v1/messages/count_tokens",
                #"{"messages":[\#(Self.question)],"tools":[\#((0..<500).map { #"{"name":"f\#($0)","input_schema":{}}"# }.joined(separator: ","))]}"#
            )
            #expect(try long.json()["input_tokens"]?.integer ?? 0 > 5_000)
            // Too many for the context, and said so.
            let overflow = try await status(many.joined(separator: ","))
            #expect(overflow == 400 || overflow == 200)
            let large = function(
                "f",
                #"{"type":"object","properties":{\#((0..<21_000).map { #""property\#($0)":{"type":"integer","minimum":\#($0)}"# }.joined(separator: ","))}}"#
            )
            #expect(large.utf8.count > 1_000_000)
            #expect([200, 400].contains(try await status(large)))
            let nested =
                ##"{"type":"object","properties":{"a":{"$ref":"#/$defs/a"}},"$defs":{"a":{"anyOf":[{"type":"null"},{"type":"object","properties":{"b":{"$ref":"#/$defs/b"}}}]},"b":{"type":"array","items":{"$ref":"#/$defs/a"}}}}"##
            #expect(try await status(function("f", nested, #","strict":true"#)) == 200)
            for schema in [
                ##"{"$ref":"#"}"##, ##"{"$ref":"#/$defs/x"}"##, #"{"$ref":"http://x/y"}"#, #"{"type":"string"}"#,
            ] {
                #expect(try await status(function("f", schema, #","strict":true"#)) == 400, "\(schema)")
            }
            let deep = String(repeating: #"{"items":"#, count: 50) + "{}" + String(repeating: "}", count: 50)
            #expect(try await status(function("f", #"{"properties":{"a":\#(deep)}}"#)) == 200)
            // It still answers.
            #expect(try await server.chat(#""temperature":0"#)["choices"]?.array?.count == 1)
        }
    }

    /// A turn of an agent: calls and their results, with thinking behind the last question.
    @Test func aTurnOfAnAgent() async throws {
        try await LiveServer.with { (server) async throws -> Void in
            let history =
                #"{"role":"assistant","reasoning_content":"I look.","content":"","tool_calls":[{"id":"call_a","type":"function","function":{"name":"now","arguments":"{}"}}]},{"role":"tool","tool_call_id":"call_a","content":"noon"}"#
            let body =
                #"{"messages":[{"role":"system","content":"Be brief."},\#(Self.question),\#(history)],\#(Self.chatTools),"temperature":0,"max_tokens":30}"#
            let reply = try await server.post("/v1/chat/completions", body)
            #expect(reply.status == 200, "\(reply.text)")
            // The next request of the same turn begins with all of this one.
            let again = try await server.post(
                "/v1/chat/completions",
                body.replacing(#""content":"noon"}"#, with: #""content":"noon"},\#(history)"#)
            ).json()
            let prompt = try #require(try reply.json()["usage"]?["prompt_tokens"]?.integer)
            let cached = try #require(again["usage"]?["prompt_tokens_details"]?["cached_tokens"]?.integer)
            #expect(cached > prompt - 20)
        }
    }
}
