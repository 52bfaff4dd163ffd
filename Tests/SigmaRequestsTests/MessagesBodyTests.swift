import Sigma
import SigmaRequests
import Testing

@Suite struct MessagesBodyTests {
    @Test func everythingThatIsSaidCounts() throws {
        let body = try MessagesBody(
            text: #"""
                {"model":"m","max_tokens":9,"system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}},{"type":"text","text":"t"}],
                "messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"thinking","thinking":"b","signature":"x"},
                {"type":"redacted_thinking","data":"y"},{"type":"text","text":"c","citations":null}]},
                {"role":"user","content":[{"type":"text","text":"d"},{"type":"text","text":"e","cache_control":{"type":"ephemeral"}}]}],
                "temperature":1,"top_k":5,"top_p":0.5,"stop_sequences":["x","y"],"stream":true,"metadata":{"user_id":"u"},
                "thinking":{"type":"enabled","budget_tokens":1024},"tool_choice":{"type":"auto"},"tools":[],"service_tier":"auto"}
                """#)
        #expect(body.chat.messages.map(\.role) == [.system, .user, .assistant, .user])
        #expect(body.chat.messages.map(\.text) == ["s\nt", "a", "c", "d\ne"])
        #expect(body.chat.messages.map(\.reasoning) == ["", "", "b", ""])
        #expect(
            body.chat.settings.options
                == GenerationOptions(
                    temperature: 1, topK: 5, topP: 0.5, thinkingBudget: 1024, maximumTokens: 9, stopStrings: ["x", "y"])
        )
        #expect(body.chat.settings.model == "m" && body.chat.settings.streams)
    }

    /// Members, and whether the model thinks.
    @Test(
        arguments: zip(
            [
                "", #""thinking":{"type":"disabled"}"#, #""thinking":{"type":"enabled"}"#,
                #""thinking":{"type":"adaptive","display":"summarized"},"output_config":{"effort":"high"}"#,
            ], [false, false, true, true])) func thinking(_ members: String, _ thinks: Bool) throws
    {
        #expect(try MessagesBody.asking(members).chat.settings.options.thinks == thinks)
    }

    /// Two requests that differ in nothing but the header which some clients put first have the same prompt.
    @Test(arguments: [
        #"[{"type":"text","text":"x-anthropic-billing-header: cc_version=2; cch=0f3a1;"},{"type":"text","text":"s"}]"#,
        #"[{"type":"text","text":"x-anthropic-billing-header: cc_version=2; cch=77777;"},{"type":"text","text":"s"}]"#,
        #"[{"type":"text","text":"s"}]"#, #""s""#,
    ]) func theBillingHeaderIsNoPartOfThePrompt(_ system: String) throws {
        let context = try Vocabulary.context()
        let tokens = try MessagesBody.asking(#""system":\#(system)"#).resolve(in: context)[0].tokens
        #expect(tokens == (try MessagesBody.asking(#""system":"s""#).resolve(in: context)[0].tokens))
    }

    /// Members that are refused, and the field that is blamed.
    static let refused: [(String, String)] = [
        (#""max_tokens":-1"#, "max_tokens"), (#""stop_sequences":[""]"#, "stop_sequences"), (#""stop":["a"]"#, "stop"),
        (#""tool_choice":{"type":"any"}"#, "tool_choice"),
        (#""tools":[{"type":"bash_20250124","name":"bash"}]"#, "tools[0].type"),
        (#""mcp_servers":[{"url":"x"}]"#, "mcp_servers"), (#""container":"c""#, "container"),
        (#""thinking":{"type":"much"}"#, "thinking.type"), (#""n":2"#, "n"),
        (#""output_config":{"format":{"type":"json_schema"}}"#, "output_config.format.schema"),
        (#""system":7"#, "system"), (#""system":[{"type":"image"}]"#, "system[0]"),
        (#""system":[{"type":"thinking","thinking":"a"}]"#, "system[0]"),
        (#""system":[{"text":"a"}]"#, "system[0].type"),
        (#""system":[{"type":"text"}]"#, "system[0].text"),
    ]

    @Test(arguments: refused.indices) func refusedByName(_ index: Int) throws {
        let (members, param) = Self.refused[index]
        let error = try #require(refusal { _ = try MessagesBody.asking(members) })
        #expect(error.status == 400 && error.param == param, "\(error)")
    }

    static let refusedMessages: [(String, String)] = [
        ("[]", "messages"), ("7", "messages"), (#"[{"role":"tool","content":"a"}]"#, "messages[0].role"),
        (#"[{"role":"user"}]"#, "messages[0].content"),
        (#"[{"role":"user","content":"a","name":"b"}]"#, "messages[0].name"),
        (#"[{"role":"user","content":[{"type":"image","source":{}}]}]"#, "messages[0].content[0]"),
        (#"[{"role":"assistant","content":[{"type":"tool_result","tool_use_id":"a"}]}]"#, "messages[0].content[0]"),
        (#"[{"role":"user","content":[{"type":"tool_use","id":"a","name":"f"}]}]"#, "messages[0].content[0]"),
        (
            #"[{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":[{"type":"image","source":{}}]}]}]"#,
            "messages[0].content[0].content[0]"
        ),
        (#"[{"role":"user","content":[{"type":"thinking","thinking":"a"}]}]"#, "messages[0].content[0]"),
        (#"[{"role":"assistant","content":[{"type":"tool_use","id":"a"}]}]"#, "messages[0].content[0].name"),
        (#"[{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f","input":{}}]}]"#, "messages[0]"),
    ]

    @Test(arguments: refusedMessages.indices) func refusedMessagesByName(_ index: Int) throws {
        let (messages, param) = Self.refusedMessages[index]
        let error = try #require(refusal { _ = try MessagesBody(text: #"{"messages":\#(messages)}"#) })
        #expect(error.status == 400 && error.param == param, "\(error)")
    }

    @Test func tokensAreCountedEvenIfTheyDoNotFit() throws {
        let body = try MessagesBody.asking()
        let count = try body.resolve(in: try Vocabulary.context())[0].tokens.count
        #expect(try body.promptTokens(in: try Vocabulary.context()) == count)
        #expect(try body.promptTokens(in: try Vocabulary.context(limit: 3)) == count)
    }

    @Test func errorsInAnthropicsForm() {
        #expect(
            RequestError(status: 400, "no \"x\"").messagesJSON
                == #"{"type":"error","error":{"type":"invalid_request_error","message":"no \"x\""}}"#)
        let types = [401, 403, 404, 413, 429, 500, 503].map { status in
            (try? JSONValue.parse(RequestError(status: status, "").messagesJSON))?["error"]?["type"]?.string
        }
        #expect(
            types == [
                "authentication_error", "permission_error", "not_found_error", "request_too_large", "rate_limit_error",
                "api_error", "overloaded_error",
            ])
    }
}

extension MessagesBody {
    init(text: String) throws {
        let bytes = Array(text.utf8)
        self = try bytes.withUnsafeBytes { try MessagesBody(bytes: $0) }
    }

    /// One question, and further members.
    static func asking(_ members: String = "") throws -> MessagesBody {
        let more = members.isEmpty ? "" : "," + members
        return try MessagesBody(text: #"{"messages":[{"role":"user","content":"Hi"}]\#(more)}"#)
    }
}
