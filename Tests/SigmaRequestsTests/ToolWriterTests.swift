import Sigma
import SigmaRequests
import Testing

/// Answers with calls, in three protocols: whole, and in streams whose text comes in any pieces.
@Suite struct ToolWriterTests {
    private static let first = #"{"city": "Zür\"{[\\ich", "n": [1, {}]}"#
    private static let answer =
        "Let me see:\n\n<tool_call>\n{\"name\": \"weather\", \"arguments\": \(first)}\n</tool_call>\n"
        + "<tool_call>\n{\n \"name\":\"now\", \"arguments\": {}\n}\n</tool_call>"

    /// One event for each character, or in pieces.
    private func events(
        _ text: String, reason: FinishReason = .stop, thinking: String = "", _ random: inout SplitMix64,
        longest: Int = 7
    ) -> [AnswerEvent] {
        var events: [AnswerEvent] = [.prefill(done: 5, total: 5)]
        if !thinking.isEmpty { events.append(.token(AnswerToken(id: 97, phase: .thinking, text: thinking))) }
        var rest = Array(text.unicodeScalars)[...]
        while !rest.isEmpty {
            var piece = String.UnicodeScalarView()
            piece.append(contentsOf: rest.prefix(Int.random(in: 0...longest, using: &random)))
            rest = rest.dropFirst(piece.count)
            var token = AnswerToken(
                id: Int32(piece.first.map { $0.value < 256 ? $0.value : 97 } ?? 97), phase: .answer, text: String(piece)
            )
            token.logProbability = -1
            events.append(.token(token))
        }
        events.append(.finished(.ended(reason, prompt: 5, answer: 3), remainder: nil))
        return events
    }

    private func chat(_ members: String = "") throws -> ChatCompletionWriter {
        ChatCompletionWriter(
            ChatWriterTests.head, try ChatCompletionBody.asking(ToolBodyTests.chat + members).settings,
            TokenNames(try Vocabulary.tokenizer()))
    }

    private func responses() throws -> ResponsesWriter {
        let text = Array(#"{"input":"Hi",\#(ToolBodyTests.responses)}"#.utf8)
        return ResponsesWriter(
            AnswerHead(id: "resp_1", created: 7, model: "m"), try text.withUnsafeBytes { try ResponsesBody(bytes: $0) },
            TokenNames(try Vocabulary.tokenizer()))
    }

    private func messages() throws -> MessagesWriter {
        let text = Array(
            #"{"messages":[{"role":"user","content":"Hi"}],\#(ToolBodyTests.messages)}"#.utf8)
        return MessagesWriter(
            AnswerHead(id: "msg_1", created: 7, model: "m"),
            try text.withUnsafeBytes { try MessagesBody(bytes: $0) }.chat.settings,
            GenerationRequest(tokens: [1, 1, 1, 1, 1], start: .answer, options: GenerationOptions()))
    }

    @Test func wholeAnswers() throws {
        var random = SplitMix64(state: 1)
        let events = events(Self.answer, thinking: "t", &random)
        var chat = try chat()
        for event in events { chat.take(event, choice: 0) }
        let quoted = #""{\"city\": \"Zür\\\"{[\\\\ich\", \"n\": [1, {}]}""#
        #expect(
            chat.answer().contains(
                #""choices":[{"index":0,"message":{"role":"assistant","content":"Let me see:","reasoning_content":"t","tool_calls":["#
                    + #"{"id":"call_1_0_0","type":"function","function":{"name":"weather","arguments":\#(quoted)}},"#
                    + #"{"id":"call_1_0_1","type":"function","function":{"name":"now","arguments":"{}"}}]},"logprobs":null,"finish_reason":"tool_calls"}]"#
            ), "\(chat.answer())")
        var responses = try responses()
        for event in events { responses.take(event) }
        #expect(
            responses.answer().contains(
                #"{"id":"msg_1","type":"message","role":"assistant","content":[{"type":"output_text","text":"Let me see:","annotations":[],"logprobs":[]}],"status":"completed"},"#
                    + #"{"id":"fc_1_0_0","type":"function_call","call_id":"call_1_0_0","name":"weather","arguments":\#(quoted),"status":"completed"},"#
                    + #"{"id":"fc_1_0_1","type":"function_call","call_id":"call_1_0_1","name":"now","arguments":"{}","status":"completed"}]"#
            ), "\(responses.answer())")
        let echoed = try JSONValue.parse(responses.answer())["tools"]
        #expect(echoed?.array?.map { $0["name"]?.string } == ["weather", "now"])
        var messages = try messages()
        for event in events { messages.take(event) }
        #expect(
            messages.answer().contains(
                #""content":[{"type":"thinking","thinking":"t","signature":"unsigned"},{"type":"text","text":"Let me see:"},"#
                    + #"{"type":"tool_use","id":"toolu_1_0_0","name":"weather","input":\#(Self.first)},"#
                    + #"{"type":"tool_use","id":"toolu_1_0_1","name":"now","input":{}}],"stop_reason":"tool_use","stop_sequence":null"#
            ), "\(messages.answer())")
    }

    /// The order of events that the protocols' clients rely on.
    @Test func theOrderOfStreams() throws {
        let text = "A\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>"
        let events: [AnswerEvent] = [
            .token(AnswerToken(id: 97, phase: .thinking, text: "t")),
            .token(AnswerToken(id: 97, phase: .answer, text: text)),
            .finished(.ended(.stop, prompt: 5, answer: 3), remainder: nil),
        ]
        var responses = try responses()
        let names = (responses.opening() + events.flatMap { responses.events(for: $0) }).map(\.name)
        #expect(
            names == [
                "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
                "response.reasoning_text.delta", "response.reasoning_text.done", "response.content_part.done",
                "response.output_item.done", "response.output_item.added", "response.content_part.added",
                "response.output_text.delta", "response.output_text.done", "response.content_part.done",
                "response.output_item.done", "response.output_item.added", "response.function_call_arguments.delta",
                "response.function_call_arguments.done", "response.output_item.done", "response.completed",
            ])
        var messages = try messages()
        let data = (messages.opening() + events.flatMap { messages.events(for: $0) }).map(\.data)
        #expect(
            Array(data.dropFirst(8).dropLast(2)) == [
                #"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_1_0_0","name":"now","input":{}}}"#,
                #"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{}"}}"#,
                #"{"type":"content_block_stop","index":2}"#,
            ], "\(data)")
        #expect(data.dropLast().last?.contains(#""stop_reason":"tool_use""#) == true)
        var chat = try chat()
        let deltas = try events.flatMap { chat.chunks(for: $0, choice: 0) }.map {
            try JSONValue.parse($0)["choices"]!.array![0]
        }
        #expect(
            deltas.map { $0["delta"]!.text } == [
                #"{"role":"assistant","content":""}"#, #"{"reasoning_content":"t"}"#, #"{"content":"A"}"#,
                #"{"tool_calls":[{"index":0,"id":"call_1_0_0","type":"function","function":{"name":"now","arguments":"{}"}}]}"#,
                "{}",
            ])
        #expect(deltas.last?["finish_reason"]?.string == "tool_calls")
    }

    /// Where an answer has calls in its place, and none behind it, a tag within it is text.
    @Test(arguments: 0..<20 as Range<UInt64>) func tagsWithinAnAnswerAreText(seed: UInt64) throws {
        var random = SplitMix64(state: seed)
        let format = #","logprobs":true,"response_format":{"type":"json_object"}"#
        let call = "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>"
        let texts = [
            #"{"a": "<tool_call>"}"#, #"{"a": "\n<tool_call>\n{\"name\": \"now\"}\n</tool_call>"}"#, "<", "<tool_cal",
            call,
            call + "\n" + call, "é<tool_call>",
        ]
        for text in texts {
            let isCall = text.hasPrefix(call)
            let events = events(text, thinking: seed % 2 == 0 ? "t" : "", &random, longest: Int(seed) + 1)
            var (whole, stream) = (try chat(format), try chat(format))
            for event in events { whole.take(event, choice: 0) }
            let choice = try #require(try JSONValue.parse(whole.answer())["choices"]?.array?[0])
            #expect(choice["message"]?["content"]?.string == (isCall ? "" : text), "\(text)")
            #expect(
                choice["message"]?["tool_calls"]?.array?.count
                    == (isCall ? text.split(separator: "name").count - 1 : nil))
            #expect(choice["finish_reason"]?.string == (isCall ? "tool_calls" : "stop"))
            let chunks = try events.flatMap { stream.chunks(for: $0, choice: 0) }.map {
                try JSONValue.parse($0)["choices"]!.array![0]
            }
            #expect(chunks.compactMap { $0["delta"]?["content"]?.string }.joined() == (isCall ? "" : text))
            // Log-probabilities are those of the content.
            let scores = chunks.flatMap { $0["logprobs"]?["content"]?.array ?? [] }
            #expect(.array(scores) == choice["logprobs"]?["content"])
            // Tokens without text count as such as long as no call has begun.
            let empty = events.count { if case .token(let token) = $0 { token.text.isEmpty } else { false } }
            #expect(isCall ? scores.count <= empty : !scores.isEmpty)
        }
    }

    /// Texts that come in any pieces and end anywhere: streams add up to the whole, and no markup is content.
    @Test(arguments: 0..<60 as Range<UInt64>) func streamsAddUp(seed: UInt64) throws {
        var random = SplitMix64(state: seed)
        let texts = [
            Self.answer, "no call < <tool > <tool_cal\n\n",
            "\n\n\n<tool_call>\n{\"name\":\"now\",\"arguments\":{}}\n</tool_call>", "",
            "<<tool_call>\n{\"name\": \"now\", \"arguments\": {\"</tool_call>\": \"<tool_call>\"}}\n</tool_call>\n",
            "é\n<\n",
        ]
        let text = texts[Int(seed) % texts.count]
        let isCut = seed % 3 == 2
        let scalars = Array(text.unicodeScalars)
        var cut = String.UnicodeScalarView()
        cut.append(contentsOf: isCut ? scalars.prefix(Int.random(in: 0...scalars.count, using: &random)) : scalars[...])
        let events = events(
            String(cut), reason: isCut ? .length : .stop, thinking: seed % 2 == 0 ? "t" : "", &random,
            longest: Int(seed % 30) + 1)
        try checkChat(events, isCut: isCut)
        try checkResponses(events, isCut: isCut)
        try checkMessages(events, isCut: isCut)
    }

    // MARK: - Other forms

    private static let sayings = FunctionCalls(
        [
            .init(
                name: "say",
                parameters:
                    #"{"properties":{"text":{"type":"string"},"n":{"type":"integer"},"on":{"type":"boolean"},"list":{"type":"array"},"any":{}},"additionalProperties":false}"#
            ), .init(name: "now", parameters: nil),
        ], form: .taggedXML)

    private func chat(_ calls: FunctionCalls, _ reach: TokenConstraint.Reach = .calls) throws -> ChatCompletionWriter {
        let constraint = try Vocabulary.context().constraints.compiled(calls, reach: reach)
        let request = GenerationRequest(
            tokens: [1], start: .answer, options: GenerationOptions(), constraint: constraint)
        return ChatCompletionWriter(
            ChatWriterTests.head, try ChatCompletionBody.asking(ToolBodyTests.chat + #","logprobs":true"#).settings,
            TokenNames(try Vocabulary.tokenizer()), [request])
    }

    /// What a whole answer has, and what its stream adds up to, in pieces of any length.
    private func answer(
        _ text: String, _ writer: () throws -> ChatCompletionWriter, _ random: inout SplitMix64, longest: Int,
        reason: FinishReason = .stop
    ) throws -> (content: String, calls: [Call], finish: String?, pieces: Int) {
        let events = events(text, reason: reason, &random, longest: longest)
        var (whole, stream) = (try writer(), try writer())
        for event in events { whole.take(event, choice: 0) }
        let choice = try #require(try JSONValue.parse(whole.answer())["choices"]?.array?[0])
        let told = (choice["message"]?["tool_calls"]?.array ?? []).map {
            Call(name: $0["function"]?["name"]?.string, arguments: $0["function"]!["arguments"]!.string!)
        }
        var (content, calls, pieces) = ("", [Call](), 0)
        for chunk in events.flatMap({ stream.chunks(for: $0, choice: 0) }) {
            let delta = try #require(try JSONValue.parse(chunk)["choices"]?.array?[0]["delta"])
            content += delta["content"]?.string ?? ""
            for piece in delta["tool_calls"]?.array ?? [] {
                if piece["id"] != nil { calls.append(Call(name: piece["function"]?["name"]?.string, arguments: "")) }
                calls[calls.count - 1].arguments += piece["function"]?["arguments"]?.string ?? ""
                pieces += 1
            }
        }
        #expect(content == choice["message"]?["content"]?.string)
        #expect(Array(calls.prefix(told.count)) == told)
        return (content, told, choice["finish_reason"]?.string, pieces)
    }

    @Test(arguments: 1...30) func taggedXML(longest: Int) throws {
        var random = SplitMix64(state: UInt64(longest))
        let value = "é \"q\"\n</param\n\n</parameter\n<b>\\"
        let text =
            "Let me say:\n\n<tool_call>\n<function=say>\n<parameter=text>\n\(value)\n</parameter>\n<parameter=n>\n-7\n</parameter>\n"
            + "<parameter=on>\nTrue\n</parameter>\n<parameter=list>\n[\"a\\nb\", {\"c\": []}]\n</parameter>\n<parameter=any>\n07\n</parameter>\n"
            + "</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>\n"
            + "<tool_call>\n<function=say>\n<parameter=text>\n\n</parameter>\n<parameter=any>\nNone\n</parameter>\n</function>\n</tool_call>"
        let found = try answer(text, { try chat(Self.sayings) }, &random, longest: longest)
        #expect(found.content == "Let me say:" && found.finish == "tool_calls")
        #expect(found.calls.map(\.name) == ["say", "now", "say"])
        var quoted = ""
        JSONWriter.escape(value, .python, into: &quoted)
        #expect(
            found.calls.map(\.arguments) == [
                #"{"text": \#(quoted), "n": -7, "on": true, "list": ["a\nb", {"c": []}], "any": "07"}"#, "{}",
                #"{"text": "", "any": null}"#,
            ])
        // Strings and lists come while they are written.
        #expect(longest > 3 || found.pieces > 20)
        for cut in [60, 100, 200] {
            let found = try answer(
                String(text.prefix(cut)), { try chat(Self.sayings) }, &random, longest: longest, reason: .length)
            #expect(found.content == "Let me say:" && found.calls.isEmpty && found.finish == "length")
        }
    }

    @Test(arguments: 1...30) func bareJSON(longest: Int) throws {
        var random = SplitMix64(state: UInt64(longest))
        let calls = FunctionCalls(Self.sayings.functions, form: .json)
        for (text, arguments) in [
            (#"{"name": "say", "parameters": {"text": "}{\"", "list": [{}]}}"#, #"{"text": "}{\"", "list": [{}]}"#),
            ("{\n  \"name\": \"say\",\n  \"parameters\": {}\n}", "{}"), (#"{"name":"say","parameters":{}}"#, "{}"),
        ] {
            let found = try answer(text, { try chat(calls) }, &random, longest: longest)
            #expect(found.content.isEmpty && found.calls == [Call(name: "say", arguments: arguments)])
            #expect(found.finish == "tool_calls")
        }
        for text in [
            "Hello", #"{"name": "Ann", "age": 3}"#, #"{"name": "say"}"#, #" {"name": "say", "parameters": {}}"#, "{",
            "{\"na",
            #"x{"name": "say", "parameters": {}}"#, "<tool_call>\n<function=say>", "é",
        ] {
            let found = try answer(text, { try chat(calls) }, &random, longest: longest)
            #expect(found.content == text && found.calls.isEmpty && found.finish == "stop", "\(text)")
        }
        let cut = try answer(
            #"{"name": "say", "parameters": {"te"#, { try chat(calls) }, &random, longest: longest, reason: .length)
        #expect(cut.content.isEmpty && cut.calls.isEmpty && cut.finish == "length")
    }

    private struct Call: Equatable {
        var id: String? = nil
        var name: String?
        var arguments: String
    }

    private func checkChat(_ events: [AnswerEvent], isCut: Bool) throws {
        var (whole, stream) = (try chat(#","logprobs":true"#), try chat(#","logprobs":true"#))
        for event in events { whole.take(event, choice: 0) }
        let choice = try #require(try JSONValue.parse(whole.answer())["choices"]?.array?[0])
        let chunks = try events.flatMap { stream.chunks(for: $0, choice: 0) }.map {
            try JSONValue.parse($0)["choices"]!.array![0]
        }
        var content = ""
        var calls: [Call] = []
        var scores: [JSONValue] = []
        for chunk in chunks {
            content += chunk["delta"]?["content"]?.string ?? ""
            scores += chunk["logprobs"]?["content"]?.array ?? []
            for piece in chunk["delta"]?["tool_calls"]?.array ?? [] {
                if piece["id"] != nil {
                    #expect(piece["index"]?.integer == Int64(calls.count))
                    calls.append(Call(id: piece["id"]?.string, name: piece["function"]?["name"]?.string, arguments: ""))
                }
                calls[calls.count - 1].arguments += piece["function"]?["arguments"]?.string ?? ""
            }
        }
        let message = try #require(choice["message"])
        let told = (message["tool_calls"]?.array ?? []).map {
            Call(
                id: $0["id"]?.string, name: $0["function"]?["name"]?.string,
                arguments: $0["function"]!["arguments"]!.string!)
        }
        #expect(content == message["content"]?.string && !content.contains("<tool_call>"))
        #expect(chunks.last?["finish_reason"] == choice["finish_reason"])
        #expect(.array(scores) == choice["logprobs"]?["content"])
        // A half call is in the stream only.
        #expect(
            Array(calls.prefix(told.count)) == told
                && (calls.count == told.count || isCut && calls.count == told.count + 1))
        for call in told { #expect(try JSONValue.parse(call.arguments).object != nil) }
        #expect(choice["finish_reason"]?.string == (isCut ? "length" : told.isEmpty ? "stop" : "tool_calls"))
    }

    private func checkResponses(_ events: [AnswerEvent], isCut: Bool) throws {
        var (whole, stream) = (try responses(), try responses())
        for event in events { whole.take(event) }
        let answer = try JSONValue.parse(whole.answer())
        let data = try (stream.opening() + events.flatMap { stream.events(for: $0) }).map {
            try JSONValue.parse($0.data)
        }
        #expect(data.last?["response"] == answer)
        var items: [JSONValue] = []
        var texts: [Int64: String] = [:]
        for (number, event) in data.enumerated() {
            #expect(event["sequence_number"]?.integer == Int64(number))
            if event["type"]?.string?.hasSuffix(".delta") == true {
                texts[event["output_index"]!.integer!, default: ""] += event["delta"]!.string!
            }
            if event["type"]?.string == "response.output_item.added" {
                #expect(event["output_index"]?.integer == Int64(items.count))
            }
            if event["type"]?.string == "response.output_item.done" { items.append(event["item"]!) }
        }
        #expect(.array(items) == answer["output"])
        for (index, item) in items.enumerated() {
            let text = item["arguments"]?.string ?? item["content"]?.array?[0]["text"]?.string
            #expect(text == texts[Int64(index)] ?? "")
        }
        #expect(answer["status"]?.string == (isCut ? "incomplete" : "completed"))
    }

    private func checkMessages(_ events: [AnswerEvent], isCut: Bool) throws {
        var (whole, stream) = (try messages(), try messages())
        for event in events { whole.take(event) }
        let answer = try JSONValue.parse(whole.answer())
        let data = try (stream.opening() + events.flatMap { stream.events(for: $0) }).map {
            try JSONValue.parse($0.data)
        }
        var blocks: [(kind: String, text: String)] = []
        var isOpen = false
        for event in data {
            switch event["type"]!.string! {
            case "content_block_start":
                #expect(!isOpen && event["index"]?.integer == Int64(blocks.count))
                isOpen = true
                blocks.append((event["content_block"]!["type"]!.string!, ""))
            case "content_block_delta":
                #expect(isOpen && event["index"]?.integer == Int64(blocks.count - 1))
                for key in ["text", "thinking", "partial_json"] {
                    blocks[blocks.count - 1].text += event["delta"]?[key]?.string ?? ""
                }
            case "content_block_stop":
                #expect(isOpen)
                isOpen = false
            default: break
            }
        }
        #expect(!isOpen)
        let content = try #require(answer["content"]?.array)
        #expect(blocks.count == content.count || isCut && blocks.count == content.count + 1)
        for (block, whole) in zip(blocks, content) {
            #expect(whole["type"]?.string == block.kind)
            if block.kind == "tool_use" {
                #expect(try JSONValue.parse(block.text) == whole["input"])
            } else {
                #expect(whole[block.kind]?.string == block.text)
            }
        }
        let calls = content.contains { $0["type"]?.string == "tool_use" }
        #expect(answer["stop_reason"]?.string == (isCut ? "max_tokens" : calls ? "tool_use" : "end_turn"))
        let end = data.first { $0["type"]?.string == "message_delta" }
        #expect(end?["delta"]?["stop_reason"] == answer["stop_reason"])
    }
}
