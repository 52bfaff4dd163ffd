import Sigma
import SigmaRequests
import Testing

@Suite struct CompletionBodyTests {
    /// Prompts as they are written, and as they are read.
    static let prompts: [(String, [CompletionBody.GivenPrompt], isList: Bool)] = [
        (#""a b""#, [.text("a b")], false), (#""""#, [.text("")], false),
        (#"["a","b"]"#, [.text("a"), .text("b")], true), ("[1,2,3]", [.tokens([1, 2, 3])], false),
        ("[[1],[2,3]]", [.tokens([1]), .tokens([2, 3])], true), ("[[]]", [.tokens([])], true),
    ]

    @Test(arguments: prompts.indices) func promptsOfAllKinds(_ index: Int) throws {
        let (text, prompts, isList) = Self.prompts[index]
        let body = try CompletionBody(text: #"{"prompt":\#(text)}"#)
        #expect(body.prompts == prompts)
        #expect(body.isList == isList)
        #expect(!body.echoes)
        #expect(body.settings.options == GenerationOptions())
    }

    /// Bodies that are refused, and the field that is blamed.
    static let refused: [(String, String)] = [
        ("{}", "prompt"), (#"{"prompt":null}"#, "prompt"), (#"{"prompt":[]}"#, "prompt"), (#"{"prompt":{}}"#, "prompt"),
        (#"{"prompt":["a",1]}"#, "prompt[1]"), (#"{"prompt":[1,"a"]}"#, "prompt[1]"),
        (#"{"prompt":[[1],"a"]}"#, "prompt[1]"),
        (#"{"prompt":[true]}"#, "prompt[0]"), (#"{"prompt":[[-1]]}"#, "prompt[0][0]"),
        (#"{"prompt":[1.5]}"#, "prompt[0]"),
        (#"{"prompt":[2147483648]}"#, "prompt[0]"), (#"{"prompt":["a","b"],"n":2000}"#, "prompt"),
        (#"{"prompt":"a","logprobs":-1}"#, "logprobs"), (#"{"prompt":"a","logprobs":true}"#, "logprobs"),
        (#"{"prompt":"a","suffix":"b"}"#, "suffix"), (#"{"prompt":"a","echo":1}"#, "echo"),
        (#"{"prompt":"a","top_logprobs":1}"#, "top_logprobs"),
        (#"{"prompt":"a","enable_thinking":true}"#, "enable_thinking"),
        (#"{"prompt":"a","messages":[]}"#, "messages"), (#"{"prompt":"a","best_of":2}"#, "best_of"),
    ]

    @Test(arguments: refused.indices) func refusedByName(_ index: Int) throws {
        let (text, param) = Self.refused[index]
        let error = try #require(refusal { _ = try CompletionBody(text: text) })
        #expect(error.status == 400)
        #expect(error.param == param)
    }

    @Test func whatLmEvalSends() throws {
        let body = try CompletionBody(
            text:
                #"{"model":"m","prompt":[[1,2],[3]],"temperature":0,"max_tokens":1,"logprobs":1,"seed":1234,"echo":true}"#
        )
        #expect(body.prompts == [.tokens([1, 2]), .tokens([3])])
        #expect(body.echoes)
        #expect(body.settings.logProbabilityCount == 1)
        #expect(body.settings.options == GenerationOptions(temperature: 0, seed: 1234, maximumTokens: 1))
    }
}
