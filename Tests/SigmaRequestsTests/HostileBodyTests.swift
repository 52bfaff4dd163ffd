import Sigma
import SigmaRequests
import Testing

/// Bodies that somebody damaged: each is a value that can be used, or an error that says why not.
@Suite struct HostileBodyTests {
    static let seeds = [
        #"{"model":"m","messages":[{"role":"system","content":"é🙂"},{"role":"user","content":[{"type":"text","text":"Hi"}]},{"role":"assistant","content":"a","reasoning_content":"b"}],"temperature":0.5,"top_k":5,"logit_bias":{"7":-1.5},"stop":["a"],"logprobs":true,"top_logprobs":3,"n":2,"seed":3,"stream":true,"stream_options":{"include_usage":true}}"#,
        #"{"messages":[{"role":"user","content":"Hi"}],"chat_template_kwargs":{"enable_thinking":false},"thinking":{"type":"disabled","budget_tokens":10},"reasoning_effort":"none","max_tokens":4,"max_completion_tokens":4,"tools":[],"response_format":{"type":"text"}}"#,
        #"{"prompt":[[1,2,3],[259,0]],"echo":true,"logprobs":1,"max_tokens":1,"temperature":0,"seed":1234}"#,
        #"{"prompt":["a","He llo"],"n":3,"stop":"x","frequency_penalty":0.5,"min_p":0.1,"top_p":0.9,"cache_salt":"s"}"#,
        #"{"input":[{"role":"user","content":[{"type":"input_text","text":"Hi"}]},{"type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"a"}]},{"role":"assistant","content":"b"}],"instructions":"s","max_output_tokens":4,"include":["message.output_text.logprobs"],"top_logprobs":2,"reasoning":{"effort":"low"},"metadata":{"a":"b"},"tools":[{"type":"web_search"}]}"#,
        #"{"max_tokens":4,"system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"thinking","thinking":"b","signature":"x"},{"type":"text","text":"c"}]}],"thinking":{"type":"enabled","budget_tokens":9},"stop_sequences":["x"],"top_k":5,"stream":true}"#,
        #"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c","content":"r"}],"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object","properties":{"a":{"type":"integer","maximum":9}},"required":["a"]},"strict":true}},{"type":"function","function":{"name":"g"}}],"tool_choice":{"type":"function","function":{"name":"f"}},"parallel_tool_calls":false}"#,
        ##"{"input":[{"role":"user","content":"a"},{"type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":"r"}],"tools":[{"type":"function","name":"f","parameters":{"type":"object","$defs":{"x":{"$ref":"#/$defs/x"}}},"strict":false}],"tool_choice":"required"}"##,
        #"{"max_tokens":4,"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"tool_use","id":"c","name":"f","input":{"a":1.5}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"c","content":"r","is_error":true}]}],"tools":[{"name":"f","input_schema":{"type":"object","additionalProperties":false}}],"tool_choice":{"type":"tool","name":"f","disable_parallel_tool_use":true}}"#,
        #"{"custom_id":"a","method":"POST","url":"/v1/completions","body":{"prompt":"x","max_tokens":2}}"#,
        #"{"custom_id":"b","method":"POST","url":"/v1/chat/completions","body":{"messages":[{"role":"user","content":"x"}]}}"#,
    ]
    static let pieces = [
        "null", "true", "-1", "0", "1e308", "1e999", "9223372036854775807", "-9223372036854775808", "0.1", "\"\"",
        "\"a\"",
        "[]", "{}", "[[]]", "{\"a\":1}", "\\u0000", "\\ud83d", "\u{202e}", "\"", "\\", ",", ":", "[", "]", "{", "}",
        "2147483648",
    ]

    /// Some changes: bytes, pieces of JSON, parts left out, put twice, or taken from another body.
    private func mutated(_ seed: [UInt8], with other: [UInt8], _ random: inout SplitMix64) -> [UInt8] {
        var bytes = seed
        for _ in 0..<Int.random(in: 1...2, using: &random) {
            let start = Int.random(in: 0...bytes.count, using: &random)
            let end = min(bytes.count, start + Int.random(in: 0...8, using: &random))
            switch Int.random(in: 0..<9, using: &random) {
            case 0 where start < bytes.count: bytes[start] = UInt8.random(in: 0...255, using: &random)
            case 1: bytes.removeSubrange(start..<end)
            case 2: bytes.insert(contentsOf: Array(Self.pieces.randomElement(using: &random)!.utf8), at: start)
            case 3: bytes.insert(contentsOf: bytes[start..<end], at: start)
            case 4:
                // A value in the place of another.
                guard let colon = bytes.indices.filter({ bytes[$0] == UInt8(ascii: ":") }).randomElement(using: &random)
                else { continue }
                let stop = bytes[(colon + 1)...].firstIndex { $0 == UInt8(ascii: ",") || $0 == UInt8(ascii: "}") }
                bytes.replaceSubrange(
                    colon + 1..<(stop ?? bytes.count), with: Array(Self.pieces.randomElement(using: &random)!.utf8))
            case 5, 6:
                guard
                    let digit = bytes.indices.filter({ (0x30...0x39).contains(bytes[$0]) }).randomElement(
                        using: &random)
                else { continue }
                bytes[digit] = UInt8.random(in: 0x30...0x39, using: &random)
            case 7:
                // Inside the texts, mostly.
                guard
                    let letter = bytes.indices.filter({ (0x61...0x7a).contains(bytes[$0]) }).randomElement(
                        using: &random)
                else { continue }
                bytes[letter] = UInt8.random(in: 0x20...0x7e, using: &random)
            default:
                let from = Int.random(in: 0...other.count, using: &random)
                let to = min(other.count, from + Int.random(in: 0...40, using: &random))
                bytes.replaceSubrange(start..<end, with: other[from..<to])
            }
        }
        return bytes
    }

    private func check(_ error: RequestError) {
        #expect((400..<500).contains(error.status))
        #expect(!error.message.isEmpty)
        #expect((try? JSONValue.parse(error.json))?["error"]?["message"]?.string == error.message)
    }

    private func check(_ requests: [GenerationRequest], _ settings: AnswerSettings, _ context: RequestContext) throws {
        #expect(!requests.isEmpty && requests.count <= RequestLimits.choices)
        for request in requests {
            try request.options.check()
            #expect(request.tokens.allSatisfy { $0 >= 0 && Int($0) < context.vocabularySize })
            #expect((1...context.positionLimit).contains(request.tokens.count))
            #expect(request.options.seed != nil)
        }
    }

    @Test func tenThousandMutatedBodies() throws {
        let context = try Vocabulary.context()
        let seeds = Self.seeds.map { Array($0.utf8) }
        var random = SplitMix64(state: 18)
        var values = 0
        var errors = 0
        for count in 0..<10_000 {
            let bytes = mutated(seeds[count % seeds.count], with: seeds.randomElement(using: &random)!, &random)
            bytes.withUnsafeBytes { bytes in
                do {
                    switch count % seeds.count {
                    case 0, 1, 6:
                        let body = try ChatCompletionBody(bytes: bytes)
                        try check(try body.resolve(in: context), body.settings, context)
                    case 2, 3:
                        let body = try CompletionBody(bytes: bytes)
                        try check(try body.resolve(in: context), body.settings, context)
                    case 4, 7:
                        let body = try ResponsesBody(bytes: bytes)
                        try check(try body.resolve(in: context), body.chat.settings, context)
                    case 5, 8:
                        let body = try MessagesBody(bytes: bytes)
                        try check(try body.resolve(in: context), body.chat.settings, context)
                    default:
                        let line = try BatchLine(bytes: bytes)
                        #expect(!line.customID.isEmpty)
                    }
                    values += 1
                } catch let error as RequestError {
                    errors += 1
                    check(error)
                } catch let refusal as BatchLine.Refusal {
                    errors += 1
                    check(refusal.error)
                } catch { Issue.record("\(error) for \(String(decoding: bytes, as: UTF8.self))") }
            }
        }
        // Both happen, or the changes would test nothing.
        #expect(values > 500 && errors > 2000, "\(values) values, \(errors) errors")
    }
}
