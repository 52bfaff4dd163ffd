import Sigma
import SigmaRequests
import Testing

@Suite struct BatchTests {
    private func line(_ text: String) throws -> BatchLine {
        try Array(text.utf8).withUnsafeBytes { try BatchLine(bytes: $0) }
    }

    @Test func linesOfBothKinds() throws {
        let chat = try line(
            #"{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"messages":[{"role":"user","content":"Hi"}],"seed":3}}"#
        )
        #expect(chat.customID == "a")
        #expect(chat.body == .chat(try ChatCompletionBody.asking(#""seed":3"#)))
        let completion = try line(
            #"{"body":{"prompt":"Hello"},"url":"/v1/completions","method":"POST","custom_id":"b"}"#)
        #expect(completion.body == .completion(try CompletionBody.continuing()))
    }

    /// Lines that are refused, whose they are, and the field that is blamed.
    static let refused: [(String, id: String?, param: String?)] = [
        ("", nil, nil), ("[]", nil, nil), ("{\"custom_id\":", nil, nil), (#"{"custom_id":7}"#, nil, "custom_id"),
        (#"{"method":"POST","url":"/v1/completions","body":{"prompt":"x"}}"#, nil, "custom_id"),
        (#"{"custom_id":"","method":"POST","url":"/v1/completions","body":{"prompt":"x"}}"#, nil, "custom_id"),
        (#"{"custom_id":"a","method":"GET","url":"/v1/completions","body":{"prompt":"x"}}"#, "a", "method"),
        (#"{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{"input":"x"}}"#, "a", "url"),
        (#"{"custom_id":"a","method":"POST","body":{"prompt":"x"}}"#, "a", "url"),
        (#"{"custom_id":"a","method":"POST","url":"/v1/completions"}"#, "a", "body"),
        (
            #"{"custom_id":"a","method":"POST","url":"/v1/completions","body":{"prompt":"x"},"priority":1}"#, "a",
            "priority"
        ),
        (#"{"custom_id":"a","method":"POST","url":"/v1/completions","body":{"prompt":"x","top_p":5}}"#, "a", "top_p"),
        (
            #"{"custom_id":"a","method":"POST","url":"/v1/completions","body":{"prompt":"x","stream":true}}"#, "a",
            "stream"
        ),
    ]

    @Test(arguments: refused.indices) func refusedByName(_ index: Int) throws {
        let (text, id, param) = Self.refused[index]
        do {
            _ = try line(text)
            Issue.record("it is a line")
        } catch let refusal as BatchLine.Refusal {
            #expect(refusal.customID == id)
            #expect(refusal.error.param == param)
            #expect(refusal.error.status == 400 && !refusal.error.message.isEmpty)
        }
    }

    @Test func results() {
        #expect(
            BatchResult(id: "r", requestID: "q", customID: "a", outcome: .answer(#"{"x":[1]}"#)).json
                == #"{"id":"r","custom_id":"a","response":{"status_code":200,"request_id":"q","body":{"x":[1]}},"error":null}"#
        )
        #expect(
            BatchResult(
                id: "r", requestID: "q", customID: nil,
                outcome: .failure(RequestError(status: 400, "no\nline", code: "c"))
            ).json
                == #"{"id":"r","custom_id":null,"response":{"status_code":400,"request_id":"q","body":{"error":{"message":"no\nline","type":"invalid_request_error","code":"c","param":null}}},"error":{"code":"c","message":"no\nline"}}"#
        )
    }
}
