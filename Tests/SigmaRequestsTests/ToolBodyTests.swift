import Sigma
import SigmaRequests
import Testing

/// Functions in the bodies of three protocols: what is read, what is refused, and the prompts that come of it.
@Suite struct ToolBodyTests {
    static let schema = #"{"type":"object","properties":{"city":{"type":"string","maxLength":5}},"required":["city"]}"#
    static let chat =
        #""tools":[{"type":"function","function":{"name":"weather","description":"W \"é\"","parameters":\#(schema)}},{"type":"function","function":{"name":"now"}}]"#
    static let responses =
        #""tools":[{"type":"web_search"},{"type":"function","name":"weather","description":"W \"é\"","parameters":\#(schema),"strict":false},{"type":"function","name":"now","parameters":null}]"#
    static let messages =
        #""tools":[{"name":"weather","description":"W \"é\"","input_schema":\#(schema),"cache_control":{"type":"ephemeral"}},{"type":"custom","name":"now","input_schema":null}]"#

    /// As Qwen's templates have it.
    static let described = """
        # Tools

        You may call one or more functions to assist with the user query.

        You are provided with function signatures within <tools></tools> XML tags:
        <tools>
        {"type": "function", "function": {"name": "weather", "description": "W \\"é\\"", "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 5}}, "required": ["city"]}}}
        {"type": "function", "function": {"name": "now"}}
        </tools>

        For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
        <tool_call>
        {"name": <function-name>, "arguments": <args-json-object>}
        </tool_call>
        """

    private func responses(_ text: String) throws -> ResponsesBody {
        try Array(text.utf8).withUnsafeBytes { try ResponsesBody(bytes: $0) }
    }
    private func messages(_ text: String) throws -> MessagesBody {
        try Array(text.utf8).withUnsafeBytes { try MessagesBody(bytes: $0) }
    }

    @Test func theSamePromptInAllProtocols() throws {
        let context = try Vocabulary.context(style: .chatml, limit: 4000)
        let expected =
            "<|im_start|>system\nS\n\n\(Self.described)<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
            + "Text.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"A\"}}\n</tool_call>\n"
            + "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call><|im_end|>\n"
            + "<|im_start|>user\n<tool_response>\nrain\n</tool_response>\n<tool_response>\nnoon\nGMT\n</tool_response><|im_end|>\n"
            + "<|im_start|>assistant\n"
        let chat = try ChatCompletionBody(
            text: #"""
                {"messages":[{"role":"system","content":"S"},{"role":"user","content":"Q"},{"role":"assistant","content":"Text.",
                "tool_calls":[{"id":"call_1","type":"function","function":{"name":"weather","arguments":"{\"city\": \"A\"}"}},
                {"id":"call_2","type":"function","function":{"name":"now","arguments":""}}]},
                {"role":"tool","tool_call_id":"call_1","content":"rain"},
                {"role":"tool","tool_call_id":"call_2","content":[{"type":"text","text":"noon"},{"type":"text","text":"GMT"}]}],\#(Self.chat)}
                """#)
        // The format's thinking prompt follows the instructions.
        var plain = context
        plain.chatFormat?.thinkingPrompt = ""
        #expect(plain.text(try chat.resolve(in: plain)[0]) == expected)
        let responses = try responses(
            #"""
            {"instructions":"S","input":[{"role":"user","content":"Q"},{"type":"message","role":"assistant","content":[{"type":"output_text","text":"Text."}]},
            {"type":"function_call","id":"fc_1","call_id":"call_1","name":"weather","arguments":"{\"city\": \"A\"}","status":"completed"},
            {"type":"function_call","call_id":"call_2","name":"now","arguments":"{}"},
            {"type":"function_call_output","call_id":"call_1","output":"rain"},
            {"type":"function_call_output","call_id":"call_2","output":[{"type":"input_text","text":"noon\nGMT"}]}],\#(Self.responses)}
            """#)
        #expect(plain.text(try responses.resolve(in: plain)[0]) == expected)
        let messages = try messages(
            #"""
            {"max_tokens":9,"system":"S","thinking":{"type":"enabled"},"messages":[{"role":"user","content":"Q"},
            {"role":"assistant","content":[{"type":"text","text":"Text."},{"type":"tool_use","id":"toolu_1","name":"weather","input":{"city":"A"}},
            {"type":"tool_use","id":"toolu_2","name":"now","input":{}}]},
            {"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_1","content":"rain","is_error":false},
            {"type":"tool_result","tool_use_id":"toolu_2","content":[{"type":"text","text":"noon"},{"type":"text","text":"GMT"}],"cache_control":{"type":"ephemeral"}}]}],\#(Self.messages)}
            """#)
        #expect(plain.text(try messages.resolve(in: plain)[0]) == expected)
        #expect(messages.chat.messages == chat.messages.map { $0 })
    }

    /// A model whose format has no place for functions reads the same words.
    @Test func everyFormatDescribesFunctions() throws {
        for style in [ChatFormat.Style.sigma, .chatml] {
            let context = try Vocabulary.context(style: style, limit: 4000)
            let text = context.text(try ChatCompletionBody.asking(Self.chat).resolve(in: context)[0])
            #expect(text.contains("Think.\n\n\(Self.described)"), "\(style)")
            // Whatever may be called, the prompt is the same: prefixes stay.
            for choice in [#""none""#, #""required""#, #"{"type":"function","function":{"name":"now"}}"#] {
                let body = try ChatCompletionBody.asking(Self.chat + #","tool_choice":\#(choice)"#)
                #expect(context.text(try body.resolve(in: context)[0]) == text)
            }
        }
    }

    @Test func choices() throws {
        func tools(_ members: String) throws -> ToolSet? {
            try ChatCompletionBody.asking(Self.chat + members).settings.tools
        }
        #expect(try tools("")?.choice == .auto && tools("")?.allowsSeveral == true)
        #expect(try tools(#","tool_choice":null"#)?.choice == .auto)
        #expect(try tools(#","tool_choice":"required","parallel_tool_calls":false"#)?.choice == .required)
        #expect(try tools(#","parallel_tool_calls":false"#)?.allowsSeveral == false)
        #expect(try tools(#","tool_choice":{"type":"function","function":{"name":"now"}}"#)?.choice == .named("now"))
        #expect(try tools(#","tool_choice":"none""#)?.choice == ToolSet.Choice.none)
        let flat = try responses(#"{"input":"a",\#(Self.responses),"tool_choice":{"type":"function","name":"now"}}"#)
        #expect(flat.chat.settings.tools?.choice == .named("now"))
        let asked = #"{"messages":[{"role":"user","content":"a"}],\#(Self.messages),"tool_choice":"#
        for (choice, expected, several) in [
            (#"{"type":"any","disable_parallel_tool_use":true}"#, ToolSet.Choice.required, false),
            (#"{"type":"auto"}"#, .auto, true), (#"{"type":"none"}"#, .none, true),
            (#"{"type":"tool","name":"now"}"#, .named("now"), true),
        ] {
            let tools = try #require(try messages(asked + choice + "}").chat.settings.tools)
            #expect(tools.choice == expected && tools.allowsSeveral == several)
        }
    }

    /// Members beside a question, and the field that is blamed.
    static let refused: [(String, String)] = [
        (#""tools":{}"#, "tools"), (#""tools":[7]"#, "tools[0]"),
        (#""tools":[{"type":"function"}]"#, "tools[0].function"),
        (#""tools":[{"type":"web_search"}]"#, "tools[0].type"),
        (#""tools":[{"type":"function","function":{}}]"#, "tools[0].function.name"),
        (#""tools":[{"type":"function","function":{"name":"a b"}}]"#, "tools[0].function.name"),
        (#""tools":[{"type":"function","function":{"name":"a\"b"}}]"#, "tools[0].function.name"),
        (#""tools":[{"type":"function","function":{"name":"é"}}]"#, "tools[0].function.name"),
        (#""tools":[{"type":"function","function":{"name":""}}]"#, "tools[0].function.name"),
        (
            #""tools":[{"type":"function","function":{"name":"\#(String(repeating: "a", count: 129))"}}]"#,
            "tools[0].function.name"
        ),
        (#""tools":[{"type":"function","function":{"name":"a","parameters":[]}}]"#, "tools[0].function.parameters"),
        (#""tools":[{"type":"function","function":{"name":"a","returns":{}}}]"#, "tools[0].function.returns"),
        (#""tools":[{"type":"function","function":{"name":"a","strict":1}}]"#, "tools[0].function.strict"),
        (
            #""tools":[{"type":"function","function":{"name":"a"}},{"type":"function","function":{"name":"a"}}]"#,
            "tools[1].function.name"
        ),
        (#""tools":[],"tool_choice":"required""#, "tool_choice"), (#""tool_choice":"sometimes""#, "tool_choice"),
        (chat + #","tool_choice":{"type":"function","function":{"name":"later"}}"#, "tool_choice"),
        (chat + #","tool_choice":{"type":"allowed_tools"}"#, "tool_choice"),
        (chat + #","tool_choice":{"function":{"name":"now"}}"#, "tool_choice.type"),
        (chat + #","parallel_tool_calls":1"#, "parallel_tool_calls"),
    ]

    @Test(arguments: refused.indices) func refusedByName(_ index: Int) throws {
        let (members, param) = Self.refused[index]
        let error = try #require(refusal { _ = try ChatCompletionBody.asking(members) }, "\(members)")
        #expect(error.status == 400 && error.param == param, "\(error)")
    }

    @Test func tooManyFunctions() throws {
        func tools(_ count: Int) -> String {
            let list = (0..<count).map { #"{"type":"function","function":{"name":"f\#($0)"}}"# }
            return #""tools":[\#(list.joined(separator: ","))]"#
        }
        #expect(try ChatCompletionBody.asking(tools(512)).settings.tools?.functions.count == 512)
        #expect(refusal { _ = try ChatCompletionBody.asking(tools(513)) }?.param == "tools")
    }

    /// Schemas that cannot be done exactly: refused where they are strict, any object where they are not.
    @Test func schemas() throws {
        let context = try Vocabulary.context(limit: 4000)
        func error(_ schema: String, strict: String, choice: String = #""auto""#) throws -> RequestError? {
            let body = try ChatCompletionBody.asking(
                #""tools":[{"type":"function","function":{"name":"now"}},{"type":"function","function":{"name":"f","parameters":\#(schema),"strict":\#(strict)}}],"tool_choice":\#(choice)"#
            )
            return refusal { _ = try body.resolve(in: context) }
        }
        let unsupported = #"{"type":"object","properties":{"a":{"type":"array","uniqueItems":true}}}"#
        let refused = try #require(try error(unsupported, strict: "true"))
        #expect(refused.status == 400 && refused.code == "invalid_constraint")
        #expect(refused.param == "tools[1].function.parameters")
        #expect(refused.message.contains("#/properties/a/uniqueItems"))
        let named = #"{"type":"function","function":{"name":"f"}}"#
        #expect(try error(unsupported, strict: "true", choice: named)?.param == "tools[1].function.parameters")
        for strict in ["false", "null"] { #expect(try error(unsupported, strict: strict) == nil) }
        #expect(try error(unsupported, strict: "true", choice: #""none""#) == nil)
        #expect(try error(#"{"type":"nonsense"}"#, strict: "false")?.param == "tools[1].function.parameters")
    }

    /// Calls, or else an answer that fits what is asked for: in every protocol, and whose fault it is if it cannot be had.
    @Test func callsOrAFormat() throws {
        let context = try Vocabulary.context(limit: 4000)
        func response(_ members: String) throws -> ResponsesBody {
            let text = Array(#"{"input":"Hi",\#(Self.responses),\#(members)}"#.utf8)
            return try text.withUnsafeBytes { try ResponsesBody(bytes: $0) }
        }
        func message(_ members: String) throws -> MessagesBody {
            let text = Array(#"{"messages":[{"role":"user","content":"Hi"}],\#(Self.messages),\#(members)}"#.utf8)
            return try text.withUnsafeBytes { try MessagesBody(bytes: $0) }
        }
        let schema = #"{"type":"object","properties":{"x":{"type":"integer"}}}"#
        for choice in ["", #","tool_choice":"auto""#, #","tool_choice":"required""#, #","tool_choice":"none""#] {
            for format in [
                #""response_format":{"type":"json_object"}"#, #""guided_regex":"a+""#, #""guided_choice":["a","b"]"#,
                #""response_format":{"type":"json_schema","json_schema":{"name":"n","schema":\#(schema)}}"#,
            ] {
                let body = try ChatCompletionBody.asking("\(Self.chat)\(choice),\(format)")
                let constraint = try #require(try body.resolve(in: context)[0].constraint)
                #expect(constraint.dropsFirstLineEnds && constraint.reach == .wholeAnswer)
            }
        }
        #expect(
            try response(#""text":{"format":{"type":"json_object"}}"#).resolve(in: context)[0].constraint?.reach
                == .wholeAnswer)
        #expect(
            try message(#""output_config":{"format":{"type":"json_schema","schema":\#(schema)}}"#)
                .resolve(in: context)[0].constraint?.reach == .wholeAnswer)

        let bad = #"{"properties":{"a":{"type":"array","uniqueItems":true}}}"#
        let refused = [
            (
                refusal {
                    _ = try ChatCompletionBody.asking(
                        #"\#(Self.chat),"response_format":{"type":"json_schema","json_schema":{"schema":\#(bad)}}"#
                    ).resolve(in: context)
                }, "response_format.json_schema.schema"
            ),
            (
                refusal {
                    _ = try response(#""text":{"format":{"type":"json_schema","name":"n","schema":\#(bad)}}"#)
                        .resolve(in: context)
                }, "text.format.schema"
            ),
            (
                refusal {
                    _ = try message(#""output_config":{"format":{"type":"json_schema","schema":\#(bad)}}"#)
                        .resolve(in: context)
                }, "output_config.format.schema"
            ),
        ]
        for (error, param) in refused {
            #expect(error?.param == param && error?.code == "invalid_constraint" && error?.status == 400, "\(param)")
            #expect(error?.message.contains("#/properties/a/uniqueItems") == true)
        }
        let regex = refusal {
            _ = try ChatCompletionBody.asking(#"\#(Self.chat),"guided_regex":"<tool_call>.*""#).resolve(in: context)
        }
        #expect(regex?.param == "guided_regex" && regex?.code == "invalid_constraint")
        // A function's schema stays its own fault.
        let function = refusal {
            _ = try ChatCompletionBody.asking(
                #""tools":[{"type":"function","function":{"name":"f","parameters":\#(bad),"strict":true}}],"response_format":{"type":"json_object"}"#
            ).resolve(in: context)
        }
        #expect(function?.param == "tools[0].function.parameters")
    }

    /// Without functions, too, a conversation that has calls gives no markup away.
    @Test func callsAreKnownFromTheConversation() throws {
        let context = try Vocabulary.context(limit: 4000)
        let history =
            #"{"messages":[{"role":"user","content":"Q"},{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{}"}}]},{"role":"tool","content":"r"}]}"#
        #expect(try ChatCompletionBody(text: history).resolve(in: context)[0].constraint != nil)
        #expect(try ChatCompletionBody.asking().resolve(in: context)[0].constraint == nil)
        #expect(
            try ChatCompletionBody.asking(Self.chat + #","tool_choice":"none""#).resolve(in: context)[0].constraint
                != nil)
    }

    /// As Python's `json.dumps` writes them for chat templates.
    @Test(arguments: [
        (
            #"{"a":[1,-0,1.0,1e5,1E-5,123456789012345678901234567890]}"#,
            #"{"a": [1, 0, 1.0, 100000.0, 1e-05, 123456789012345678901234567890]}"#
        ),
        (
            "[1e15,1e16,0.0001,0.00001234,1.5e300,-2.50,12345678901234567.0]",
            "[1000000000000000.0, 1e+16, 0.0001, 1.234e-05, 1.5e+300, -2.5, 1.2345678901234568e+16]"
        ),
        (#"["\u00e9\ud83d\ude42\u2028\u007f\u0001\b\f\n\"\\\/"]"#, "[\"é🙂\u{2028}\u{7f}\\u0001\\b\\f\\n\\\"\\\\/\"]"),
        ("[1e999,-1e999]", "[Infinity, -Infinity]"),
        (#"{"b":{},"a":[],"c":[true,false,null]}"#, #"{"b": {}, "a": [], "c": [true, false, null]}"#),
    ]) func jsonOfPrompts(_ json: String, _ expected: String) throws {
        #expect(try JSONValue.parse(json, exactNumbers: true).promptText == expected)
    }
}
