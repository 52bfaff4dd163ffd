import Sigma
import SigmaRequests
import Testing

@Suite struct ChatWriterTests {
    static let head = AnswerHead(id: "chatcmpl-1", created: 7, model: "m")

    private func writer(_ members: String = "", reasoning: ReasoningField = .reasoningContent) throws
        -> ChatCompletionWriter
    {
        ChatCompletionWriter(
            Self.head, try ChatCompletionBody.asking(members).settings, TokenNames(try Vocabulary.tokenizer()),
            reasoning: reasoning)
    }

    static let events: [AnswerEvent] = [
        .prefill(done: 5, total: 5), .token(AnswerToken(id: 97, phase: .thinking, text: "a")),
        .token(AnswerToken(id: 256, phase: .answer, text: "He")),
        .token(AnswerToken(id: 0xe2, phase: .answer, text: "")),
        .finished(
            .ended(prompt: 5, reused: 2, thinking: 1, answer: 2),
            remainder: AnswerToken(id: -1, phase: .answer, text: "!")),
    ]
    static let usage =
        #""usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8,"prompt_tokens_details":{"cached_tokens":2},"#
        + #""completion_tokens_details":{"reasoning_tokens":1,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}"#

    @Test func aWholeAnswer() throws {
        var writer = try writer()
        for event in Self.events { writer.take(event, choice: 0) }
        #expect(writer.isFinished)
        #expect(
            writer.answer()
                == #"{"id":"chatcmpl-1","object":"chat.completion","created":7,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"He!","reasoning_content":"a"},"logprobs":null,"finish_reason":"stop"}],"#
                + Self.usage + "}")
    }

    @Test func aStream() throws {
        var writer = try writer(#""stream":true,"stream_options":{"include_usage":true}"#)
        let chunks = Self.events.flatMap { writer.chunks(for: $0, choice: 0) }
        let head = #"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"m","choices":["#
        func chunk(_ delta: String, _ reason: String = "null") -> String {
            head + #"{"index":0,"delta":\#(delta),"logprobs":null,"finish_reason":\#(reason)}],"usage":null}"#
        }
        #expect(
            chunks == [
                chunk(#"{"role":"assistant","content":""}"#), chunk(#"{"reasoning_content":"a"}"#),
                chunk(#"{"content":"He"}"#), chunk(#"{"content":"!"}"#), chunk("{}", "\"stop\""),
                head + "]," + Self.usage + "}",
            ])
    }

    @Test func withoutUsageThereIsNone() throws {
        var writer = try writer(#""stream":true"#)
        #expect(Self.events.flatMap { writer.chunks(for: $0, choice: 0) }.allSatisfy { !$0.contains("usage") })
    }

    @Test func contentIsNeverNull() throws {
        var writer = try writer()
        writer.take(.finished(.ended(.context), remainder: nil), choice: 0)
        #expect(
            writer.answer().contains(
                #""message":{"role":"assistant","content":""},"logprobs":null,"finish_reason":"length""#))
    }

    /// Reasons as the engine says them, and as the client reads them.
    @Test(
        arguments: zip(
            [FinishReason.stop, .length, .context, .interrupted], ["stop", "length", "length", "interrupted"]))
    func reasons(_ reason: FinishReason, _ word: String) throws {
        var writer = try writer()
        writer.take(.finished(.ended(reason), remainder: nil), choice: 0)
        #expect(writer.answer().contains(#""finish_reason":"\#(word)""#))
    }

    /// Events of thinking, and the content where its tags are left in.
    static let tagged: [([AnswerEvent], String)] = [
        (events, "<think>a</think>He!"),
        ([.token(AnswerToken(id: 1, phase: .answer, text: "b"))], "b"),
        (
            [
                .token(AnswerToken(id: 1, phase: .thinking, text: "")),
                .token(AnswerToken(id: 1, phase: .thinking, text: "b")),
            ], "<think>b"
        ),
        ([.closing(ids: [1], text: "E.")], "<think>E.</think>"),
        (
            [
                .token(AnswerToken(id: 1, phase: .thinking, text: "b")), .closing(ids: [1], text: "E."),
                .token(AnswerToken(id: 1, phase: .answer, text: "c")),
            ], "<think>bE.</think>c"
        ),
        (
            [
                .token(AnswerToken(id: 1, phase: .thinking, text: "b")),
                .token(AnswerToken(id: 1, phase: .answer, text: "")),
            ], "<think>b</think>"
        ),
    ]

    @Test(arguments: tagged.indices) func tagsThatAreLeftInTheText(_ index: Int) throws {
        let (events, content) = Self.tagged[index]
        var writer = try writer(reasoning: .none)
        for event in events { writer.take(event, choice: 0) }
        let message = try JSONValue.parse(writer.answer())["choices"]?.array?[0]["message"]
        #expect(message?["content"]?.string == content)
        #expect(message?.object?.count == 2)
    }

    @Test func logProbabilities() throws {
        var writer = try writer(#""logprobs":true,"top_logprobs":2"#)
        var token = AnswerToken(id: 256, phase: .answer, text: "He")
        token.logProbability = -0.1
        token.top = [.init(id: 256, logProbability: -0.1), .init(id: 0xe2, logProbability: -.infinity)]
        writer.take(.token(AnswerToken(id: 1, phase: .thinking, text: "x", logProbability: -5)), choice: 0)
        writer.take(.token(token), choice: 0)
        writer.take(.token(AnswerToken(id: 299, phase: .answer, text: "", logProbability: -1e-7)), choice: 0)
        #expect(
            writer.answer().contains(
                #""logprobs":{"content":[{"token":"He","logprob":-0.1,"bytes":[72,101],"top_logprobs":[{"token":"He","logprob":-0.1,"bytes":[72,101]},{"token":"bytes:\\xE2","logprob":-9999.0,"bytes":[226]}]},{"token":"token_id:299","logprob":-1e-07,"bytes":null,"top_logprobs":[]}]}"#
            ))
    }

    /// A stream's chunks put together as clients do it.
    private func joined(_ chunks: [String]) throws -> [Int: [String: JSONValue]] {
        var choices: [Int: [String: JSONValue]] = [:]
        for chunk in chunks {
            for choice in try JSONValue.parse(chunk)["choices"]?.array ?? [] {
                let index = Int(choice["index"]!.integer!)
                var all = choices[index] ?? ["finish_reason": .null, "logprobs": .array([])]
                let delta = choice["delta"]!.object!
                #expect(choices[index] != nil || delta.keys.first == "role")
                #expect(all["finish_reason"]!.isNull)
                for (key, value) in zip(delta.keys, delta.values) {
                    all[key] = .string((all[key]?.string ?? "") + value.string!)
                }
                let tokens = choice["logprobs"]!["content"]?.array ?? []
                all["logprobs"] = .array(all["logprobs"]!.array! + tokens)
                all["finish_reason"] = choice["finish_reason"]
                choices[index] = all
            }
        }
        return choices
    }

    @Test(arguments: ReasoningField.allCases) func aStreamAddsUpToTheWhole(_ field: ReasoningField) throws {
        for seed in 0..<200 as Range<UInt64> {
            let wantsScores = seed % 2 == 0
            let members =
                #""n":3,"stream":true,"stream_options":{"include_usage":true}"#
                + (wantsScores ? #","logprobs":true,"top_logprobs":2"# : "")
            var source = RandomEvents(seed: seed, logProbabilityCount: wantsScores ? 2 : nil)
            let events = source.mixed((0..<3).map { _ in source.events(thinks: Bool.random(using: &source.random)) })
            var whole = try writer(members, reasoning: field)
            var stream = try writer(members, reasoning: field)
            var chunks: [String] = []
            for (choice, event) in events {
                whole.take(event, choice: choice)
                chunks += stream.chunks(for: event, choice: choice)
            }
            let answer = try JSONValue.parse(whole.answer())
            let choices = try joined(chunks)
            #expect(choices.count == 3)
            for choice in answer["choices"]!.array! {
                let all = try #require(choices[Int(choice["index"]!.integer!)])
                let message = choice["message"]!.object!
                for (key, value) in zip(message.keys, message.values) { #expect(all[key] == value) }
                #expect(all.count == message.count + 2)
                #expect(all["finish_reason"] == choice["finish_reason"])
                #expect(all["logprobs"] == (wantsScores ? choice["logprobs"]!["content"] : .array([])))
            }
            let last = try JSONValue.parse(chunks.last!)
            #expect(last["choices"]?.array?.isEmpty == true && last["usage"] == answer["usage"])
        }
    }

    @Test func usageOfSeveralChoices() throws {
        var writer = try writer(#""n":2"#)
        writer.take(.finished(.ended(prompt: 10, reused: 9, answer: 2), remainder: nil), choice: 1)
        #expect(!writer.isFinished)
        writer.take(.finished(.ended(prompt: 10, reused: 4, thinking: 3, answer: 1), remainder: nil), choice: 0)
        #expect(writer.isFinished)
        #expect(writer.usage.promptTokens == 10 && writer.usage.cachedTokens == 4)
        #expect(writer.usage.completionTokens == 6 && writer.usage.reasoningTokens == 3)
    }
}
