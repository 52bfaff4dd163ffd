import Sigma
import SigmaRequests
import Testing

@Suite struct ChatBodyTests {
    @Test func whatIsNotSaidIsADefault() throws {
        let body = try ChatCompletionBody.asking()
        #expect(body.settings.options == GenerationOptions())
        #expect(body.settings.model == nil)
        #expect(body.settings.choicesPerPrompt == 1)
        #expect(!body.settings.streams && !body.settings.includesUsage)
        #expect(body.settings.logProbabilityCount == nil && body.settings.cacheSalt == nil)
        #expect(body.messages.map(\.role) == [.user])
        #expect(body.messages[0].text == "Hi")
    }

    @Test func everythingThatIsSaidCounts() throws {
        let body = try ChatCompletionBody.asking(
            #""model":"m","temperature":0,"top_k":-1,"top_p":0.5,"min_p":0.25,"seed":-1,"n":3,"max_completion_tokens":9,"max_tokens":9,"#
                + #""stop":["a","\n"],"logit_bias":{"7":-100,"12":2.5},"presence_penalty":1,"frequency_penalty":-2,"logprobs":true,"#
                + #""top_logprobs":5,"stream":true,"stream_options":{"include_usage":true},"cache_salt":"s","#
                + #""thinking_budget":100,"enable_thinking":true"#)
        let options = GenerationOptions(
            temperature: 0, topK: 0, topP: 0.5, minP: 0.25, seed: .max, thinks: true, thinkingBudget: 100,
            maximumTokens: 9, stopStrings: ["a", "\n"], logitBias: [7: -100, 12: 2.5], frequencyPenalty: -2,
            presencePenalty: 1)
        #expect(body.settings.options == options)
        #expect(body.settings.model == "m")
        #expect(body.settings.choicesPerPrompt == 3)
        #expect(body.settings.streams && body.settings.includesUsage)
        #expect(body.settings.logProbabilityCount == 5)
        #expect(body.settings.cacheSalt == "s")
        try options.check()
    }

    @Test func messagesOfAllRoles() throws {
        let body = try ChatCompletionBody(
            text: #"""
                {"messages":[{"role":"developer","content":"a"},{"role":"system","content":[]},
                {"role":"user","content":[{"type":"text","text":"b"},{"type":"text","text":"c"}]},
                {"role":"assistant","content":null,"refusal":null,"tool_calls":null,"annotations":[],"reasoning":"d"},
                {"role":"tool","tool_call_id":"t","content":"e"},
                {"role":"assistant","content":"f","reasoning_content":"g","reasoning":"g","tool_calls":[]}]}
                """#)
        #expect(body.messages.map(\.role) == [.developer, .system, .user, .assistant, .tool, .assistant])
        #expect(body.messages.map(\.text) == ["a", "", "b\nc", "", "e", "f"])
        #expect(body.messages.map(\.reasoning) == ["", "", "", "d", "", "g"])
    }

    @Test func aPredictionIsATextOrItsParts() throws {
        #expect(try ChatCompletionBody.asking().settings.prediction == "")
        #expect(try ChatCompletionBody.asking(#""prediction":null"#).settings.prediction == "")
        #expect(
            try ChatCompletionBody.asking(#""prediction":{"type":"content","content":"let a = 1\n"}"#).settings
                .prediction
                == "let a = 1\n")
        #expect(
            try ChatCompletionBody.asking(
                #""prediction":{"type":"content","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}"#
            ).settings.prediction == "a\nb")
    }

    /// Members, and whether the model thinks and for how long.
    static let thinking: [(String, Bool, Int)] = [
        (#""chat_template_kwargs":{"enable_thinking":false}"#, false, 32768),
        (#""chat_template_kwargs":{"thinking":true,"thinking_budget":5}"#, true, 5),
        (#""enable_thinking":false"#, false, 32768),
        (#""reasoning_effort":"none""#, false, 32768),
        (#""reasoning_effort":"low""#, true, 32768),
        (#""reasoning_effort":"none","chat_template_kwargs":{"enable_thinking":false}"#, false, 32768),
        (#""thinking_budget":0"#, true, 0),
        (#""thinking_token_budget":1"#, true, 1),
        (#""thinking_budget_tokens":2"#, true, 2),
        (#""reasoning_budget_tokens":3"#, true, 3),
        (#""thinking":{"type":"enabled","budget_tokens":1024}"#, true, 1024),
        (#""thinking":{"type":"disabled"}"#, false, 32768),
        (#""reasoning":{"effort":"high","max_tokens":7}"#, true, 7),
        (#""thinking_budget":8,"thinking_token_budget":8"#, true, 8),
        (#""thinking_budget":null,"reasoning_effort":null"#, true, 32768),
    ]

    @Test(arguments: thinking.indices) func thinkingInEverySpelling(_ index: Int) throws {
        let (members, thinks, budget) = Self.thinking[index]
        let options = try ChatCompletionBody.asking(members).settings.options
        #expect(options.thinks == thinks)
        #expect(options.thinkingBudget == budget)
    }

    @Test(arguments: [
        #""user":"u""#, #""store":true"#, #""metadata":{"a":"b"}"#, #""service_tier":"flex""#,
        #""parallel_tool_calls":false"#,
        #""safety_identifier":"x""#, #""prompt_cache_key":"k""#, #""response_format":{"type":"text"}"#, #""tools":[]"#,
        #""tool_choice":"none""#, #""tool_choice":"auto""#, #""functions":[]"#, #""modalities":["text"]"#,
        #""audio":null"#,
        #""nonsense":null"#, #""repetition_penalty":1.0"#, #""typical_p":1"#, #""min_tokens":0"#,
        #""ignore_eos":false"#,
        #""n":1,"best_of":1"#, #""stop":null"#, #""stop":[]"#, #""logprobs":false,"top_logprobs":0"#, #""seed":1e3"#,
        #""add_generation_prompt":true"#, #""continue_final_message":false"#,
    ])
    func harmless(_ members: String) throws {
        var settings = try ChatCompletionBody.asking(members).settings
        settings.options.seed = nil
        #expect(settings == (try ChatCompletionBody.asking().settings))
    }

    /// Members that are refused, and the field that is blamed.
    static let refused: [(String, String)] = [
        (#""temperature":-0.1"#, "temperature"), (#""temperature":"hot""#, "temperature"),
        (#""top_p":0"#, "top_p"), (#""top_p":1.01"#, "top_p"), (#""top_k":-2"#, "top_k"), (#""top_k":1.5"#, "top_k"),
        (#""min_p":2"#, "min_p"), (#""seed":1.5"#, "seed"), (#""seed":18446744073709551615"#, "seed"),
        (#""n":0"#, "n"), (#""n":100000"#, "n"), (#""n":2,"best_of":3"#, "best_of"),
        (#""max_tokens":-1"#, "max_tokens"), (#""max_tokens":9223372036854775807"#, "max_tokens"),
        (#""max_tokens":1,"max_completion_tokens":2"#, "max_completion_tokens"),
        (#""stop":"""#, "stop"), (#""stop":[""]"#, "stop"), (#""stop":[1]"#, "stop"), (#""stop":{}"#, "stop"),
        (#""stop":["a","a","a","a","a","a","a","a","a","a","a","a","a","a","a","a","a"]"#, "stop"),
        (#""logit_bias":[]"#, "logit_bias"), (#""logit_bias":{"x":1}"#, "logit_bias"),
        (#""logit_bias":{"01":1}"#, "logit_bias"), (#""logit_bias":{"-1":1}"#, "logit_bias"),
        (#""logit_bias":{"1":101}"#, "logit_bias"), (#""logit_bias":{"1":"a"}"#, "logit_bias"),
        (#""presence_penalty":3"#, "presence_penalty"), (#""frequency_penalty":-2.5"#, "frequency_penalty"),
        (#""repetition_penalty":1.1"#, "repetition_penalty"), (#""ignore_eos":true"#, "ignore_eos"),
        (#""logprobs":5"#, "logprobs"), (#""top_logprobs":2"#, "top_logprobs"),
        (#""logprobs":true,"top_logprobs":1000000"#, "top_logprobs"), (#""stream":1"#, "stream"),
        (#""stream_options":{"include_usage":true}"#, "stream_options"),
        (#""stream":true,"stream_options":{"x":1}"#, "stream_options.x"),
        (#""stream":true,"stream_options":[]"#, "stream_options"),
        (#""model":7"#, "model"), (#""model":"""#, "model"), (#""cache_salt":"""#, "cache_salt"),
        (#""reasoning_effort":"much""#, "reasoning_effort"), (#""thinking_budget":-1"#, "thinking_budget"),
        (#""thinking_budget":1,"thinking_token_budget":2"#, "thinking_token_budget"),
        (#""enable_thinking":true,"reasoning_effort":"none""#, "reasoning_effort"),
        (#""chat_template_kwargs":{"enable_thinking":"no"}"#, "chat_template_kwargs.enable_thinking"),
        (#""chat_template_kwargs":{"tone":"kind"}"#, "chat_template_kwargs.tone"),
        (#""thinking":{"type":"sometimes"}"#, "thinking.type"), (#""reasoning":{"exclude":true}"#, "reasoning.exclude"),
        (#""response_format":{"type":"grammar"}"#, "response_format.type"),
        (#""response_format":{"type":"json_schema"}"#, "response_format.json_schema"),
        (#""response_format":{"type":"json_schema","json_schema":{}}"#, "response_format.json_schema.schema"),
        (#""response_format":{"type":"json_object","schema":{}}"#, "response_format.schema"),
        (#""response_format":{"type":"json_object"},"guided_regex":"a""#, "guided_regex"),
        (#""guided_choice":[]"#, "guided_choice"), (#""guided_choice":["a",1]"#, "guided_choice"),
        (#""guided_grammar":"x""#, "guided_grammar"),
        (#""structured_outputs":{"grammar":"x"}"#, "structured_outputs.grammar"),
        (#""structured_outputs":{"json":{},"regex":"a"}"#, "structured_outputs.regex"),
        (#""tool_choice":"required""#, "tool_choice"), (#""function_call":{"name":"f"}"#, "function_call"),
        (#""functions":[{}]"#, "functions"), (#""modalities":["text","audio"]"#, "modalities"),
        (#""prediction":{"type":"content"}"#, "prediction.content"), (#""prediction":"a""#, "prediction"),
        (#""prediction":{"content":"a"}"#, "prediction.type"),
        (#""prediction":{"type":"content","content":[{"type":"image_url"}]}"#, "prediction.content[0]"),
        (#""prediction":{"type":"content","content":"a","x":1}"#, "prediction.x"), (#""echo":true"#, "echo"),
        (#""nonsense":0"#, "nonsense"),
        (#""verbosity":"low""#, "verbosity"), (#""continue_final_message":true"#, "continue_final_message"),
    ]

    @Test(arguments: refused.indices) func refusedByName(_ index: Int) throws {
        let (members, param) = Self.refused[index]
        let error = try #require(refusal { _ = try ChatCompletionBody.asking(members) })
        #expect(error.status == 400)
        #expect(error.param == param)
        #expect(error.message.contains(param))
        #expect(error.type == "invalid_request_error")
    }

    /// Lists of messages that are refused, and the field that is blamed.
    static let refusedMessages: [(String, String)] = [
        ("[]", "messages"), ("{}", "messages"), ("7", "messages"), ("[7]", "messages[0]"),
        (#"[{"content":"a"}]"#, "messages[0].role"), (#"[{"role":"robot","content":"a"}]"#, "messages[0].role"),
        (#"[{"role":"user"}]"#, "messages[0].content"), (#"[{"role":"user","content":null}]"#, "messages[0].content"),
        (#"[{"role":"user","content":7}]"#, "messages[0].content"),
        (#"[{"role":"user","content":"a"},{"role":"user","content":["b"]}]"#, "messages[1].content[0]"),
        (#"[{"role":"user","content":[{"text":"b"}]}]"#, "messages[0].content[0].type"),
        (#"[{"role":"user","content":[{"type":"text"}]}]"#, "messages[0].content[0].text"),
        (
            #"[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"u"}}]}]"#,
            "messages[0].content[1]"
        ),
        (
            #"[{"role":"user","content":[{"type":"text","text":"a","cache_control":{}}]}]"#,
            "messages[0].content[0].cache_control"
        ),
        (#"[{"role":"user","content":"a","name":"Ann"}]"#, "messages[0].name"),
        (#"[{"role":"assistant","content":"a","tool_calls":[{"id":"c"}]}]"#, "messages[0].tool_calls[0].function"),
        (
            #"[{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]}]"#,
            "messages[0].tool_calls"
        ),
        (#"[{"role":"assistant","reasoning":"a","reasoning_content":"b"}]"#, "messages[0].reasoning"),
    ]

    @Test(arguments: refusedMessages.indices) func refusedMessagesByName(_ index: Int) throws {
        let (messages, param) = Self.refusedMessages[index]
        let error = try #require(refusal { _ = try ChatCompletionBody(text: #"{"messages":\#(messages)}"#) })
        #expect(error.status == 400)
        #expect(error.param == param)
    }

    @Test func bodiesThatAreNone() throws {
        for text in ["", "{", "[]", "null", "{\"messages\":", "{\"n\":1,\"n\":1}", "\u{feff}{}"] {
            let error = try #require(refusal { _ = try ChatCompletionBody(text: text) })
            #expect(error.status == 400 && !error.message.isEmpty)
        }
        let deep = String(repeating: "[", count: 64) + String(repeating: "]", count: 64)
        #expect(refusal { _ = try ChatCompletionBody(text: #"{"messages":\#(deep)}"#) }?.code == "invalid_json")
        let allowed = String(repeating: "[", count: 63) + String(repeating: "]", count: 63)
        #expect(refusal { _ = try ChatCompletionBody(text: #"{"messages":\#(allowed)}"#) }?.param == "messages[0]")
        let long = #"{"messages":""# + String(repeating: "a", count: RequestLimits.bodyBytes) + #""}"#
        #expect(refusal { _ = try ChatCompletionBody(text: long) }?.status == 413)
    }

    @Test func errorsForgeNoLines() throws {
        for members in [#""thinking":{"type":"a\nb"}"#, #""a\nb":1"#, #""temperature":"\u001b[2J""#] {
            let error = try #require(refusal { _ = try ChatCompletionBody.asking(members) })
            #expect(error.message.unicodeScalars.allSatisfy { $0.value >= 0x20 })
        }
    }

    @Test func errorsAsJSON() throws {
        let error = try #require(refusal { _ = try ChatCompletionBody.asking(#""top_p":7"#) })
        #expect(
            error.json
                == #"{"error":{"message":"top_p: expected a number above 0 and at most 1, found 7","type":"invalid_request_error","code":"invalid_value","param":"top_p"}}"#
        )
        #expect(
            RequestError(status: 503, "busy \"now\"").json
                == #"{"error":{"message":"busy \"now\"","type":"server_error","code":null,"param":null}}"#)
        #expect(RequestError.unknownModel("x").status == 404)
        #expect(RequestError(status: 429, "").type == "rate_limit_error")
        let failure = RequestError(SigmaError(.inputOutput, "reading failed", path: "/secret/model.gguf"))
        #expect(failure.status == 500 && failure.message == "reading failed")
    }
}
