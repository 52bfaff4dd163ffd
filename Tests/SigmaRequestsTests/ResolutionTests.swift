import Sigma
import SigmaRequests
import Testing

@Suite struct ResolutionTests {
    private func chat(_ messages: String, _ members: String = "") throws -> ChatCompletionBody {
        try ChatCompletionBody(text: #"{"messages":\#(messages)\#(members.isEmpty ? "" : "," + members)}"#)
    }

    static let off = #""enable_thinking":false"#

    @Test func aConversation() throws {
        let context = try Vocabulary.context()
        let messages =
            #"[{"role":"system","content":"S"},{"role":"user","content":"A"},{"role":"assistant","content":"B","reasoning":"R"},{"role":"user","content":"C<|end|>"}]"#
        let thinking = try chat(messages).resolve(in: context)[0]
        #expect(
            context.text(thinking)
                == "<|bos|><|system|>S Think.<|end|><|user|>A<|end|><|assistant|><think></think>B<|end|><|user|>C<|end|><|end|><|assistant|>"
        )
        #expect(thinking.start == .undetermined)
        // What a user writes is never a special token.
        #expect(thinking.tokens.count { $0 == Vocabulary.id("<|end|>") } == 4)
        let plain = try chat(messages, Self.off).resolve(in: context)[0]
        #expect(context.text(plain).hasSuffix("<|assistant|><think></think>"))
        #expect(context.text(plain).hasPrefix("<|bos|><|system|>S<|end|>"))
        #expect(plain.start == .answer)
    }

    @Test func instructionsInTheMiddle() throws {
        let messages =
            #"[{"role":"developer","content":"S"},{"role":"system","content":"T"},{"role":"user","content":"A"},{"role":"system","content":"U"}]"#
        let body = try chat(messages, Self.off)
        let sigma = try Vocabulary.context()
        #expect(
            sigma.text(try body.resolve(in: sigma)[0])
                == "<|bos|><|system|>S<|end|><|system|>T<|end|><|user|>A<|end|><|system|>U<|end|><|assistant|><think></think>"
        )
        let chatML = try Vocabulary.context(style: .chatml)
        #expect(
            chatML.text(try body.resolve(in: chatML)[0])
                == "<|im_start|>system\nS<|im_end|>\n<|im_start|>system\nT<|im_end|>\n<|im_start|>user\nA<|im_end|>\n"
                + "<|im_start|>system\nU<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
    }

    @Test func aContinuedAnswer() throws {
        let plain = try chat(#"[{"role":"user","content":"A"},{"role":"assistant","content":"B"}]"#, Self.off)
        let thought = try chat(
            #"[{"role":"user","content":"A"},{"role":"assistant","content":"B","reasoning":"R"}]"#, Self.off)
        let sigma = try Vocabulary.context()
        let request = try plain.resolve(in: sigma)[0]
        #expect(sigma.text(request) == "<|bos|><|user|>A<|end|><|assistant|><think></think>B")
        #expect(request.start == .answer)
        #expect(
            sigma.text(try thought.resolve(in: sigma)[0]) == "<|bos|><|user|>A<|end|><|assistant|><think>R</think>B")
        for opens in [false, true] {
            let chatML = try Vocabulary.context(style: .chatml, opensThinking: opens)
            let header = "<|im_start|>user\nA<|im_end|>\n<|im_start|>assistant\n<think>"
            #expect(chatML.text(try plain.resolve(in: chatML)[0]) == header + "\n\n</think>\n\nB")
            #expect(chatML.text(try thought.resolve(in: chatML)[0]) == header + "\nR\n</think>\n\nB")
        }
        // A model that does not think has no tags.
        for style in [ChatFormat.Style.sigma, .chatml] {
            var context = try Vocabulary.context(style: style)
            context.chatFormat?.thinks = false
            #expect(!context.text(try thought.resolve(in: context)[0]).contains("think"))
            #expect(context.text(try thought.resolve(in: context)[0]).hasSuffix("B"))
        }
        // Thinking is over, whatever the body says of it.
        let thinks = try chat(#"[{"role":"user","content":"A"},{"role":"assistant","content":"B"}]"#)
        #expect(try thinks.resolve(in: Vocabulary.context(opensThinking: true))[0].start == .answer)
    }

    @Test func seedsOfChoices() throws {
        let context = try Vocabulary.context()
        let given = try ChatCompletionBody.asking(#""n":3,"seed":-2"#).resolve(in: context)
        #expect(given.map(\.options.seed) == [.max - 1, .max, 0])
        #expect(given.allSatisfy { $0.tokens == given[0].tokens })
        let random = try ChatCompletionBody.asking(#""n":2"#).resolve(in: context).map { $0.options.seed! }
        #expect(random[0] < 1 << 53 && random[1] == random[0] + 1)
        // Each prompt of a list gets the seeds that it would get alone.
        let list = try CompletionBody(text: #"{"prompt":["a","b"],"n":2,"seed":7}"#).resolve(in: context)
        #expect(list.map(\.options.seed) == [7, 8, 7, 8])
        #expect(list.map(\.tokens) == [[97], [97], [98], [98]])
    }

    @Test func promptsOfCompletions() throws {
        let context = try Vocabulary.context(addsBos: true)
        let bos = Vocabulary.id("<|bos|>")
        let texts = try CompletionBody(text: #"{"prompt":["a<|user|>","b"]}"#).resolve(in: context)
        #expect(texts.map(\.tokens) == [[bos, 97, Vocabulary.id("<|user|>")], [bos, 98]])
        let ids = try CompletionBody(text: #"{"prompt":[[97],[98,299]]}"#).resolve(in: context)
        #expect(ids.map(\.tokens) == [[97], [98, 299]])
        #expect(ids.allSatisfy { $0.start == .answer && $0.logProbabilityCount == nil && !$0.scoresPrompt })
    }

    /// Members of a completion, and what is asked of the engine.
    static let scores: [(String, count: Int?, scoresPrompt: Bool)] = [
        (#""logprobs":2"#, 2, false), (#""logprobs":2,"echo":true"#, 2, true), (#""echo":true"#, nil, false),
        (#""logprobs":0,"echo":true,"max_tokens":0"#, 0, true),
        // Nothing is scored where nothing would be shown.
        (#""logprobs":2,"max_tokens":0"#, nil, false),
    ]

    @Test(arguments: scores.indices) func logProbabilities(_ index: Int) throws {
        let (members, count, scoresPrompt) = Self.scores[index]
        let request = try CompletionBody.continuing(members).resolve(in: Vocabulary.context())[0]
        #expect(request.logProbabilityCount == count)
        #expect(request.scoresPrompt == scoresPrompt)
    }

    @Test func whatDoesNotFit() throws {
        let five = "[1,2,3,4,5]"
        func resolve(_ members: String, limit: Int) throws -> [GenerationRequest] {
            try CompletionBody(text: #"{"prompt":\#(five)\#(members)}"#).resolve(in: Vocabulary.context(limit: limit))
        }
        #expect(try resolve("", limit: 6).count == 1)
        #expect(try resolve(#","max_tokens":0"#, limit: 5).count == 1)
        let error = try #require(refusal { _ = try resolve("", limit: 5) })
        #expect(error.status == 400 && error.code == "context_length_exceeded" && error.param == "prompt")
        let json = try JSONValue.parse(error.json)["error"]
        #expect(json?["n_prompt_tokens"]?.integer == 5)
        #expect(json?["n_ctx"]?.integer == 5)
        #expect(refusal { _ = try resolve(#","max_tokens":0"#, limit: 4) }?.overflow?.contextLength == 4)
    }

    /// Bodies that only the model shows to be wrong, and the field that is blamed.
    static let refused: [(String, String)] = [
        (#"{"prompt":""}"#, "prompt"), (#"{"prompt":["a",""]}"#, "prompt[1]"), (#"{"prompt":[[]]}"#, "prompt[0]"),
        (#"{"prompt":[300]}"#, "prompt"), (#"{"prompt":[[1],[7,400]]}"#, "prompt[1]"),
        (#"{"prompt":"a","logit_bias":{"299":1,"300":1}}"#, "logit_bias"),
        (#"{"prompt":"a","logprobs":301}"#, "logprobs"),
    ]

    @Test(arguments: refused.indices) func refusedByName(_ index: Int) throws {
        let (text, param) = Self.refused[index]
        let error = try #require(
            refusal { _ = try CompletionBody(text: text).resolve(in: Vocabulary.context()) })
        #expect(error.param == param && error.status == 400)
    }

    @Test func modelsThatReadNoText() throws {
        var context = try Vocabulary.context()
        context.chatFormat = nil
        #expect(refusal { _ = try ChatCompletionBody.asking().resolve(in: context) }?.code == "unsupported_by_model")
        context.tokenizer = nil
        #expect(refusal { _ = try CompletionBody.continuing().resolve(in: context) }?.param == "prompt")
        #expect(try CompletionBody(text: #"{"prompt":[1]}"#).resolve(in: context)[0].tokens == [1])
    }
}
