import Sigma
import SigmaRequests
import Testing

@Suite struct ResponsesBodyTests {
    @Test func aTextIsAMessage() throws {
        let body = try ResponsesBody(text: #"{"input":"Hi"}"#)
        #expect(body.chat == (try ChatCompletionBody.asking()))
    }

    @Test func everythingThatIsSaidCounts() throws {
        let body = try ResponsesBody(
            text: #"""
                {"model":"m","input":[{"role":"developer","content":"a"},{"type":"message","role":"user","content":[
                {"type":"input_text","text":"b"},{"type":"input_text","text":"c"}]},
                {"type":"reasoning","id":"rs_1","summary":[],"content":[{"type":"reasoning_text","text":"d"}],"encrypted_content":null},
                {"type":"message","id":"msg_1","status":"completed","role":"assistant","phase":"final_answer",
                "content":[{"type":"output_text","text":"e","annotations":[],"logprobs":[]}]},
                {"role":"user","content":"f"}],"instructions":"s","max_output_tokens":9,"temperature":0.5,"top_p":0.5,
                "reasoning":{"effort":"none","summary":"auto"},"stream":true,"include":["message.output_text.logprobs"],
                "top_logprobs":2,"seed":7}
                """#)
        #expect(body.chat.messages.map(\.role) == [.system, .developer, .user, .assistant, .user])
        #expect(body.chat.messages.map(\.text) == ["s", "a", "b\nc", "e", "f"])
        #expect(body.chat.messages.map(\.reasoning) == ["", "", "", "d", ""])
        let settings = body.chat.settings
        #expect(
            settings.options
                == GenerationOptions(temperature: 0.5, topP: 0.5, seed: 7, thinks: false, maximumTokens: 9))
        #expect(settings.model == "m" && settings.streams && settings.logProbabilityCount == 2)
    }

    /// What Codex sends beside its conversation, without functions.
    @Test func whatChangesNothingIsIgnored() throws {
        let body = try ResponsesBody(
            text: #"""
                {"input":"Hi","tools":[{"type":"web_search"},{"type":"custom","name":"apply_patch"},{"type":"local_shell"}],
                "tool_choice":"auto","parallel_tool_calls":false,"store":false,"include":["reasoning.encrypted_content"],
                "prompt_cache_key":"k","text":{"verbosity":"low","format":{"type":"text"}},"metadata":{"a":"b"},"user":"u",
                "truncation":"disabled","background":false,"service_tier":"auto","previous_response_id":null,
                "stream_options":{"include_obfuscation":false},"safety_identifier":"x","client_metadata":{}}
                """#)
        #expect(body.chat == (try ChatCompletionBody.asking()))
    }

    /// Members that are refused, and the field that is blamed.
    static let refused: [(String, String)] = [
        ("", "input"), (#""input":[]"#, "input"), (#""input":7"#, "input"), (#""input":["a"]"#, "input[0]"),
        (#""input":"a","previous_response_id":"resp_1""#, "previous_response_id"),
        (#""input":"a","conversation":"c""#, "conversation"), (#""input":"a","background":true"#, "background"),
        (#""input":"a","truncation":"auto""#, "truncation"), (#""input":"a","max_tokens":5"#, "max_tokens"),
        (#""input":"a","max_output_tokens":-1"#, "max_output_tokens"), (#""input":"a","n":2"#, "n"),
        (#""input":"a","tools":[{"type":"web_search"},{"type":"function"}]"#, "tools[1].name"),
        (#""input":"a","tools":[{}]"#, "tools[0].type"), (#""input":"a","tool_choice":"required""#, "tool_choice"),
        (#""input":"a","text":{"format":{"type":"xml"}}"#, "text.format.type"),
        (#""input":"a","metadata":7"#, "metadata"), (#""input":"a","include":"x""#, "include"),
        (#""input":"a","include":[1]"#, "include[0]"), (#""input":"a","top_logprobs":2"#, "top_logprobs"),
        (#""input":"a","instructions":["b"]"#, "instructions"), (#""input":"a","prompt":{"id":"p"}"#, "prompt"),
        (#""input":"a","reasoning":{"effort":"much"}"#, "reasoning.effort"), (#""input":"a","nonsense":1"#, "nonsense"),
        (#""input":[{"role":"tool","content":"a"}]"#, "input[0].role"),
        (#""input":[{"role":"user"}]"#, "input[0].content"),
        (#""input":[{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}]"#, "input[0]"),
        (#""input":[{"type":"function_call","call_id":"c","name":"f"}]"#, "input[0].arguments"),
        (#""input":[{"type":"function_call_output","call_id":"c"}]"#, "input[0].output"),
        (#""input":[{"type":"item_reference","id":"x"}]"#, "input[0]"),
        (#""input":[{"type":"reasoning","summary":[]}]"#, "input"),
        (
            #""input":[{"role":"user","content":[{"type":"input_image","image_url":"data:,"}]}]"#, "input[0].content[0]"
        ),
        (#""input":[{"role":"user","content":"a","name":"Ann"}]"#, "input[0].name"),
    ]

    @Test(arguments: refused.indices) func refusedByName(_ index: Int) throws {
        let (members, param) = Self.refused[index]
        let error = try #require(refusal { _ = try ResponsesBody(text: "{\(members)}") })
        #expect(error.status == 400 && error.param == param, "\(error)")
    }

    @Test func aFormatConstrainsTheAnswer() throws {
        let body = try ResponsesBody(
            text:
                #"{"input":"a","text":{"format":{"type":"json_schema","name":"n","strict":true,"schema":{"maximum":1.50}}}}"#
        )
        let wanted = try #require(body.chat.settings.constraint)
        #expect(wanted.constraint == .jsonSchema(#"{"maximum":1.50}"#) && wanted.param == "text.format.schema")
    }

    @Test func anInputThatDoesNotFit() throws {
        let body = try ResponsesBody(text: #"{"input":"Hi Hi Hi"}"#)
        let error = try #require(refusal { _ = try body.resolve(in: try Vocabulary.context(limit: 5)) })
        #expect(error.code == "context_length_exceeded" && error.param == "input")
    }
}

extension ResponsesBody {
    init(text: String) throws {
        let bytes = Array(text.utf8)
        self = try bytes.withUnsafeBytes { try ResponsesBody(bytes: $0) }
    }
}
