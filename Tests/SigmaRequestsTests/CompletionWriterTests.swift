import Sigma
import SigmaRequests
import Testing

@Suite struct CompletionWriterTests {
    private func writer(_ text: String, _ context: RequestContext) throws -> CompletionWriter {
        let body = try CompletionBody(text: text)
        return CompletionWriter(
            AnswerHead(id: "cmpl-1", created: 7, model: "m"), body, try body.resolve(in: context), in: context)
    }

    @Test func aWholeAnswer() throws {
        var writer = try writer(#"{"prompt":"Hello"}"#, Vocabulary.context())
        writer.take(.prefill(done: 2, total: 2), choice: 0)
        writer.take(.token(AnswerToken(id: 258, phase: .answer, text: " wor")), choice: 0)
        writer.take(
            .finished(
                .ended(.length, prompt: 2, answer: 1), remainder: AnswerToken(id: -1, phase: .answer, text: "\u{fffd}")),
            choice: 0)
        #expect(
            writer.answer()
                == #"{"id":"cmpl-1","object":"text_completion","created":7,"model":"m","choices":[{"index":0,"text":" wor"#
                + "\u{fffd}"
                + #"","logprobs":null,"finish_reason":"length"}],"usage":{"prompt_tokens":2,"completion_tokens":1,"#
                + #""total_tokens":3,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"#
                + #""accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}"#)
    }

    static let hello: [PromptPosition] = [
        PromptPosition(next: .init(id: 257, logProbability: -0.5), top: [.init(id: 97, logProbability: -0.25)]),
        PromptPosition(next: nil, top: [.init(id: 258, logProbability: -0.125)]),
    ]

    @Test func anEchoWithLogProbabilities() throws {
        var writer = try writer(
            #"{"prompt":"Hello","echo":true,"logprobs":1,"max_tokens":1,"stream":true}"#,
            Vocabulary.context(addsBos: true))
        let positions =
            [PromptPosition(next: .init(id: 256, logProbability: -3), top: [.init(id: 256, logProbability: -3)])]
            + Self.hello
        #expect(writer.chunks(for: .prefill(done: 3, total: 3), choice: 0).isEmpty)
        let first = writer.chunks(for: .promptLogProbabilities(positions), choice: 0)
        #expect(first.count == 1)
        // The bos is a token, and no part of the text.
        #expect(
            first[0].contains(
                #""text":"Hello","logprobs":{"tokens":["<|bos|>","He","llo"],"token_logprobs":[null,-3.0,-0.5],"top_logprobs":[null,{"He":-3.0},{"a":-0.25,"llo":-0.5}],"text_offset":[0,0,2]},"finish_reason":null"#
            ))
        var token = AnswerToken(id: 258, phase: .answer, text: " wor", logProbability: -0.125)
        token.top = [.init(id: 258, logProbability: -0.125)]
        let second = writer.chunks(for: .token(token), choice: 0)
        #expect(
            second[0].contains(
                #""text":" wor","logprobs":{"tokens":[" wor"],"token_logprobs":[-0.125],"top_logprobs":[{" wor":-0.125}],"text_offset":[5]}"#
            ))
    }

    @Test func anEchoAlone() throws {
        let context = try Vocabulary.context(addsBos: true)
        // Characters in pieces, and a special token, are the text that the ids stand for.
        let ids = Array("é".utf8).map(Int32.init) + [Vocabulary.id("<|user|>"), 0xff]
        var writer = try writer(#"{"prompt":["é<|user|>",\#("\"x\"")],"echo":true}"#, context)
        var tokens = try self.writer(#"{"prompt":\#(ids),"echo":true}"#, context)
        for choice in 0..<2 { writer.take(.prefill(done: 1, total: 2), choice: choice) }
        tokens.take(.finished(.ended(), remainder: nil), choice: 0)
        let choices = try JSONValue.parse(writer.answer())["choices"]!.array!
        #expect(choices.map { $0["text"]!.string } == ["é<|user|>", "x"])
        #expect(try JSONValue.parse(tokens.answer())["choices"]!.array![0]["text"]!.string == "é<|user|>\u{fffd}")
    }

    @Test func anEchoWhosePromptWasNotScored() throws {
        var writer = try writer(#"{"prompt":"Hello","echo":true,"logprobs":1}"#, Vocabulary.context())
        writer.take(.prefill(done: 0, total: 2), choice: 0)
        writer.take(.finished(.ended(.interrupted), remainder: nil), choice: 0)
        #expect(
            writer.answer().contains(
                #""text":"Hello","logprobs":{"tokens":[],"token_logprobs":[],"top_logprobs":[],"text_offset":[]},"finish_reason":"interrupted""#
            ))
    }

    @Test func offsetsInsideCharacters() throws {
        let names = TokenNames(try Vocabulary.tokenizer())
        let ids = Array("a🙂b".utf8).map(Int32.init) + [Vocabulary.id("<|end|>"), 0xe2]
        let (text, offsets) = names.text(of: ids)
        #expect(text == "a🙂b<|end|>\u{fffd}")
        #expect(offsets == [0, 1, 1, 1, 1, 2, 3, 10])
    }

    @Test func namesOfTokensDiffer() throws {
        let special = ["bytes:\\xE2", "token_id:299", "\u{fffd}", "e\u{301}", "\u{e9}"]
        let tokens = (0..<256).map { [UInt8($0)] } + special.map { Array($0.utf8) } + [[]]
        let tokenizer = try Tokenizer(
            TokenizerDefinition(
                tokens: TokenTable(tokens), kinds: Array(repeating: .normal, count: 261) + [.unused],
                mergeRule: .byRank,
                pattern: .o200k, normalizer: .none, bos: nil, eos: nil, addsBos: false))
        let names = TokenNames(tokenizer)
        let all = (0..<262 as Range<Int32>).map { ByteKey(text: names.name(of: $0)) }
        #expect(Set(all).count == all.count)
        #expect(
            names.name(of: 97) == "a" && names.name(of: 0xe2) == #"bytes:\xE2"# && names.name(of: 261) == "token_id:261"
        )
        #expect(
            names.named([.init(id: 97, logProbability: 0), .init(id: 97, logProbability: -1)]).map(\.name) == [
                "a", "token_id:97",
            ])
    }

    /// What lm-eval 0.4.13 makes of the answer to a log-likelihood (`parse_logprobs` of its openai_completions model).
    private func loglikelihood(_ answer: JSONValue, _ contextLengths: [Int]) -> [(sum: Double, isGreedy: Bool)] {
        let choices = answer["choices"]!.array!.sorted { $0["index"]!.integer! < $1["index"]!.integer! }
        return zip(choices, contextLengths).map { choice, length in
            let scores = choice["logprobs"]!["token_logprobs"]!.array!.dropFirst(length).dropLast().map { $0.double! }
            let tops = choice["logprobs"]!["top_logprobs"]!.array!.dropFirst(length).dropLast()
            let isGreedy = zip(scores, tops).allSatisfy { score, top in
                score == top.object!.values.map { $0.double! }.max()
            }
            return (scores.reduce(0, +), isGreedy)
        }
    }

    @Test func whatLmEvalReads() throws {
        let context = try Vocabulary.context()
        var writer = try writer(
            #"{"prompt":[[256,257,97],[256,257,98]],"temperature":0,"max_tokens":1,"logprobs":1,"seed":1,"echo":true}"#,
            context)
        let best = -0.1 - 0.2 - 1e-17
        for (choice, id, score) in [(0, 97, best), (1, 98, best.nextDown)] as [(Int, Int32, Double)] {
            let positions = [
                PromptPosition(next: .init(id: 257, logProbability: -4), top: [.init(id: 256, logProbability: -1)]),
                PromptPosition(next: .init(id: id, logProbability: score), top: [.init(id: 97, logProbability: best)]),
                PromptPosition(next: nil, top: []),
            ]
            writer.take(.promptLogProbabilities(positions), choice: choice)
            // The one token that is generated ends the answer in one of them: it is there all the same.
            let token = AnswerToken(id: Vocabulary.id("<|end|>"), phase: .answer, text: "", logProbability: -0.5)
            if choice == 0 {
                writer.take(.token(AnswerToken(id: 99, phase: .answer, text: "c", logProbability: -2)), choice: 0)
            }
            writer.take(
                .finished(.ended(choice == 0 ? .length : .stop, stopToken: choice == 0 ? nil : token), remainder: nil),
                choice: choice)
        }
        let answer = try JSONValue.parse(writer.answer())
        let two = loglikelihood(answer, [2, 2])
        #expect(two.map(\.sum) == [best, best.nextDown])
        #expect(two.map(\.isGreedy) == [true, false])
        let one = loglikelihood(answer, [1, 1])
        #expect(one.map(\.sum) == [best - 4, best.nextDown - 4])
        #expect(one.map(\.isGreedy) == [false, false])
    }

    @Test func aStreamAddsUpToTheWhole() throws {
        let context = try Vocabulary.context()
        for seed in 0..<200 as Range<UInt64> {
            let (scores, echoes) = (seed % 2 == 0, seed % 3 == 0)
            let text =
                #"{"prompt":[[97,226],[256,257,261]],"n":2,"stream":true,"stream_options":{"include_usage":true},"echo":\#(echoes)"#
                + (scores ? #","logprobs":2}"# : "}")
            let prompts: [[Int32]] = [[97, 226], [97, 226], [256, 257, 261], [256, 257, 261]]
            var source = RandomEvents(seed: seed, logProbabilityCount: scores ? 2 : nil)
            let events = source.mixed(
                prompts.map { source.events(scoring: scores && echoes ? $0 : nil, thinks: false) })
            var whole = try writer(text, context)
            var stream = try writer(text, context)
            var chunks: [JSONValue] = []
            for (choice, event) in events {
                whole.take(event, choice: choice)
                chunks += try stream.chunks(for: event, choice: choice).map { try JSONValue.parse($0) }
            }
            let answer = try JSONValue.parse(whole.answer())
            for choice in answer["choices"]!.array! {
                let own = chunks.compactMap { $0["choices"]!.array!.first }.filter { $0["index"] == choice["index"] }
                #expect(own.map { $0["text"]!.string! }.joined() == choice["text"]!.string)
                #expect(own.dropLast().allSatisfy { $0["finish_reason"]!.isNull })
                #expect(own.last?["finish_reason"] == choice["finish_reason"])
                for key in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] where scores {
                    let joined = own.flatMap { $0["logprobs"]![key]?.array ?? [] }
                    #expect(joined == choice["logprobs"]![key]!.array)
                }
                let prompt = choice["index"]!.integer! < 2 ? "a\u{fffd}" : "Hello<|bos|>"
                #expect(choice["text"]!.string!.hasPrefix(prompt) == echoes)
            }
            #expect(chunks.last?["usage"] == answer["usage"] && chunks.last?["choices"]?.array?.isEmpty == true)
        }
    }
}
