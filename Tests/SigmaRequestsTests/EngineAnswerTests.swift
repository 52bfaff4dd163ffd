import Foundation
import Sigma
import SigmaConversion
import SigmaRequests
import Testing

/// Bodies answered by the trained checkpoint of Models/demo.
@Suite struct EngineAnswerTests {
    static let checkpoint =
        URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .path + "/Models/demo/checkpoint"

    private static let model = Result { () -> ModelFile in
        let output = FileManager.default.temporaryDirectory.path + "/sigma-requests-\(UUID().uuidString).gguf"
        defer { try? FileManager.default.removeItem(atPath: output) }
        try Converter.convert(
            Converter.Options(
                input: checkpoint, output: output, type: .q8_0, overrides: try Overrides()))
        return try ModelFile(path: output)
    }

    let engine: Engine
    private let context: RequestContext

    init() throws {
        let model = try Self.model.get()
        engine = try Engine(model: model, backend: try CPUBackend(model: model, threadCount: 2))
        context = RequestContext(engine, kvType: .f16)
    }

    private func events(_ request: GenerationRequest) throws -> [AnswerEvent] {
        let answer = try engine.answer(request, on: try engine.makeTimeline(kvType: .f16))
        var events: [AnswerEvent] = []
        while let event = try answer.next() { events.append(event) }
        return events
    }

    private func complete(_ text: String) throws -> [JSONValue] {
        let body = try CompletionBody(text: text)
        let requests = try body.resolve(in: context)
        var writer = CompletionWriter(AnswerHead(id: "c", created: 1, model: "demo"), body, requests, in: context)
        for (choice, request) in requests.enumerated() {
            for event in try events(request) { writer.take(event, choice: choice) }
        }
        return try JSONValue.parse(writer.answer())["choices"]!.array!
    }

    func chat(_ text: String) throws -> JSONValue {
        let body = try ChatCompletionBody(text: text)
        let requests = try body.resolve(in: context)
        var writer = ChatCompletionWriter(
            AnswerHead(id: "c", created: 1, model: "demo"), body.settings, TokenNames(context.tokenizer))
        for (choice, request) in requests.enumerated() {
            for event in try events(request) { writer.take(event, choice: choice) }
        }
        return try JSONValue.parse(writer.answer())
    }

    static let question = #"{"messages":[{"role":"user","content":"What is 347 + 586?"}],"temperature":0"#

    /// The engine is asked for what `sigma-run` asks it for.
    @Test func aQuestionIsThePromptOfSigmaRun() throws {
        let request = try ChatCompletionBody(text: Self.question + "}").resolve(in: context)[0]
        let prompt = try engine.prompt(turns: [Turn(.user, "What is 347 + 586?")], system: "", thinks: true)
        #expect(request.tokens == prompt.tokens && request.start == prompt.start)
        let raw = try CompletionBody(text: #"{"prompt":"What is"}"#).resolve(in: context)[0]
        #expect(raw.tokens == (try engine.rawPrompt("What is")).tokens && raw.start == .answer)
    }

    /// A prediction is a source of drafts: the same answer, and the usage says how many of its tokens held.
    @Test func aPredictedChat() throws {
        let plain = try chat(Self.question + #","enable_thinking":false}"#)
        let content = try #require(plain["choices"]?.array?[0]["message"]?["content"]?.string)
        var prediction = JSONWriter()
        prediction.value(content)
        let body =
            Self.question
            + #","enable_thinking":false,"prediction":{"type":"content","content":\#(prediction.text)}}"#
        var drafting = context
        drafting.drafts = .on
        let request = try ChatCompletionBody(text: body).resolve(in: drafting)[0]
        #expect(request.options.drafts == .on)
        #expect(request.prediction == engine.tokenizer?.encode(content, recognizingSpecials: false))
        var writer = ChatCompletionWriter(
            AnswerHead(id: "c", created: 1, model: "demo"), try ChatCompletionBody(text: body).settings,
            TokenNames(context.tokenizer))
        for event in try events(request) { writer.take(event, choice: 0) }
        let predicted = try JSONValue.parse(writer.answer())
        #expect(predicted["choices"] == plain["choices"])
        let details = predicted["usage"]?["completion_tokens_details"]
        let accepted = try #require(details?["accepted_prediction_tokens"]?.integer)
        #expect(accepted > 5 && details?["rejected_prediction_tokens"]?.integer != nil)
        #expect(plain["usage"]?["completion_tokens_details"]?["accepted_prediction_tokens"]?.integer == 0)
    }

    @Test func aChat() throws {
        let answer = try chat(Self.question + "}")
        let message = answer["choices"]?.array?[0]["message"]
        #expect(message?["content"]?.string == "347 + 586 = 933.")
        #expect(message?["reasoning_content"]?.string?.contains("5+1=9") == true)
        // A request that begins with the answer's begin goes on with its end.
        let request =
            #"{"messages":[{"role":"user","content":"What is 347 + 586?"},{"role":"assistant","content":"347 + 586 ="}],"temperature":0,"max_tokens":12}"#
        let continued = try chat(request)["choices"]?.array?[0]["message"]
        #expect(continued?["reasoning_content"] == nil)
        #expect(continued?["content"]?.string?.isEmpty == false)
    }

    /// The echo of what was generated greedily has the generation's log-probabilities, to the bit, and calls every token greedy.
    @Test func anEchoScoresWhatWasGenerated() throws {
        let prompt = context.tokenizer!.encode("What is 12 + 7?", recognizingSpecials: false)
        let generated = try complete(#"{"prompt":\#(prompt),"temperature":0,"max_tokens":8,"logprobs":1}"#)[0]
        let made = generated["logprobs"]!["token_logprobs"]!.array!
        let request = try CompletionBody(text: #"{"prompt":\#(prompt),"temperature":0,"max_tokens":8}"#).resolve(
            in: context)[0]
        let ids = try events(request).compactMap { event in
            if case .token(let token) = event { token.id } else { nil }
        }
        let all = prompt + ids
        let echo = try complete(
            #"{"prompt":[\#(all),\#(prompt)],"temperature":0,"max_tokens":1,"logprobs":1,"echo":true}"#)
        for (choice, count) in zip(echo, [all.count, prompt.count]) {
            let scores = choice["logprobs"]!
            for key in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
                #expect(scores[key]!.array!.count == count + 1)
            }
            #expect(scores["token_logprobs"]!.array![0].isNull && scores["top_logprobs"]!.array![0].isNull)
        }
        let scores = echo[0]["logprobs"]!
        let told = Array(scores["token_logprobs"]!.array!.dropFirst(prompt.count))
        #expect(told.prefix(ids.count) == made.prefix(ids.count))
        for index in prompt.count..<all.count {
            let top = scores["top_logprobs"]!.array![index].object!.values.compactMap(\.double).max()
            #expect(scores["token_logprobs"]!.array![index].double == top)
        }
        // The token behind the shorter prompt is the first that was generated.
        #expect(echo[1]["logprobs"]!["token_logprobs"]!.array!.last == made.first)
        #expect(echo[1]["text"]!.string!.hasPrefix("What is 12 + 7?"))
    }

    /// Scoring a prompt changes nothing in what follows it.
    @Test func scoringChangesNoAnswer() throws {
        for options in [#""temperature":0"#, #""temperature":1.2,"seed":5"#] {
            let request = #"{"prompt":"What is 12 + 7? ","max_tokens":24,\#(options)"#
            let plain = try complete(request + "}")[0]["text"]!.string!
            #expect(try complete(request + #","logprobs":3}"#)[0]["text"]!.string == plain)
            #expect(
                try complete(request + #","logprobs":3,"echo":true}"#)[0]["text"]!.string == "What is 12 + 7? " + plain)
        }
    }

    /// A stop token is no text, and has a log-probability like everything that was generated.
    @Test func theStopTokenIsScored() throws {
        let body = try ChatCompletionBody(text: Self.question + #","enable_thinking":false}"#)
        let ids = try body.resolve(in: context)[0].tokens
        let choice = try complete(#"{"prompt":\#(ids),"temperature":0,"logprobs":1,"max_tokens":200}"#)[0]
        #expect(choice["finish_reason"]?.string == "stop")
        let tokens = choice["logprobs"]!["tokens"]!.array!
        let stops = engine.stopTokens.map { TokenNames(context.tokenizer).name(of: $0) }
        #expect(stops.contains(tokens.last!.string!))
        #expect(choice["logprobs"]!["token_logprobs"]!.array!.allSatisfy { $0.double! <= 0 })
        #expect(
            choice["logprobs"]!["text_offset"]!.array!.last?.integer
                == Int64(choice["text"]!.string!.unicodeScalars.count))
    }

    /// Choice i is what seed + i gives alone.
    @Test func choicesAreSeeds() throws {
        let request = #"{"prompt":"What is","max_tokens":16,"temperature":1.5,"top_k":0"#
        let three = try complete(request + #","seed":40,"n":3}"#).map { $0["text"]!.string! }
        for (index, text) in three.enumerated() {
            #expect(try complete(request + #","seed":\#(40 + index)}"#)[0]["text"]!.string == text)
        }
        #expect(Set(three).count > 1)
    }
}
