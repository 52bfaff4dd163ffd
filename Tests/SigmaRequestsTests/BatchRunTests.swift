import Foundation
import SampleFiles
import Sigma
import SigmaConversion
import SigmaRequests
import Testing

/// Batches on the trained checkpoint of Models/demo.
extension EngineAnswerTests {
    private static func line(_ id: String, _ question: String, _ members: String = #""temperature":0"#) -> String {
        #"{"custom_id":"\#(id)","method":"POST","url":"/v1/chat/completions","body":{"messages":[{"role":"user","content":"\#(question)"}],\#(members)}}"#
    }

    /// - Returns: the results, by `custom_id`.
    private func results(
        _ lines: [String], stopAfter: Int = .max, engine: Engine? = nil
    ) throws -> [String: JSONValue] {
        let run = BatchRun(engine ?? self.engine, kvType: .f16, model: "demo")
        var next = 0
        var results: [String: JSONValue] = [:]
        try run.answer(
            lines: {
                guard next < lines.count else { return nil }
                next += 1
                return BatchRun.Line(number: next, bytes: Array(lines[next - 1].utf8))
            }, isStopped: { results.count >= stopAfter }
        ) { result in
            let value = try JSONValue.parse(result.json)
            let id = value["custom_id"]?.string ?? value["id"]!.string!
            #expect(results[id] == nil)
            results[id] = value
        }
        return results
    }

    /// Every line's answer is what it is alone; a line that is wrong is told so and stops nobody.
    @Test func aBatchAnswersEachLineAsAlone() throws {
        let questions = (0..<20).map { "What is \(100 + 31 * $0) + \(7 + 13 * $0)?" }
        var lines = questions.enumerated().map {
            Self.line("q\($0.offset)", $0.element, #""temperature":0.8,"seed":\#($0.offset)"#)
        }
        lines.insert("not JSON", at: 3)
        lines.append(Self.line("stream", "Hi", #""stream":true"#))
        lines.append(
            #"{"custom_id":"raw","method":"POST","url":"/v1/completions","body":{"prompt":["a","b"],"max_tokens":3,"n":2,"seed":1}}"#
        )
        let results = try results(lines)
        #expect(results.count == lines.count)
        for (index, question) in questions.enumerated() {
            let alone = try chat(
                #"{"messages":[{"role":"user","content":"\#(question)"}],"temperature":0.8,"seed":\#(index)}"#)
            #expect(
                results["q\(index)"]?["response"]?["body"]?["choices"]?.array?[0]["message"]
                    == alone["choices"]?.array?[0]["message"])
        }
        #expect(results["line-4"]?["error"]?["code"]?.string == "invalid_json")
        #expect(results["stream"]?["response"]?["status_code"]?.integer == 400)
        #expect(results["raw"]?["response"]?["body"]?["choices"]?.array?.count == 4)
    }

    /// What lines have in common is computed once.
    @Test func aBatchSharesBeginnings() throws {
        let instructions = (0..<60).map { "Rule \($0)." }.joined(separator: " ")
        let lines = (0..<8).map {
            Self.line(
                "q\($0)", "\(instructions) What is \($0) + 2?", #""temperature":0,"max_tokens":4,"thinking_budget":0"#)
        }
        let usages = try results(lines).values.map { $0["response"]!["body"]!["usage"]! }
        let prompt = usages.reduce(0) { $0 + $1["prompt_tokens"]!.integer! }
        let cached = usages.reduce(0) { $0 + $1["prompt_tokens_details"]!["cached_tokens"]!.integer! }
        #expect(Double(cached) > 0.8 * Double(prompt))
    }

    /// Free memory is promised once: nobody begins who would have to be parked, and computed again.
    @Test func noMoreLinesBeginThanMemoryHasRoomFor() throws {
        // Two answers have seven blocks each, and a step its rows.
        let engine = try SmallModel.engine(
            budget: 17 * SmallModel.file().configuration.kvBlockBytes(.f16), rowLimit: 16)
        let bias = engine.stopTokens.map { "\"\($0)\":-100" }.joined(separator: ",")
        let lines = (0..<6).map {
            #"{"custom_id":"\#($0)","method":"POST","url":"/v1/completions","body":{"prompt":\#(SmallModel.tokens(1400, seed: UInt64($0))),"max_tokens":100,"logit_bias":{\#(bias)}}}"#
        }
        let run = BatchRun(engine, kvType: .f16, model: "small", drafts: .off)
        var rest = lines[...]
        var most = 0
        try run.answer(
            lines: { rest.popFirst().map { BatchRun.Line(number: lines.count - rest.count, bytes: Array($0.utf8)) } },
            isStopped: { false }, progress: { most = max(most, $0.running) }
        ) { result in
            let usage = try JSONValue.parse(result.json)["response"]?["body"]?["usage"]
            #expect(usage?["completion_tokens"]?.integer == 100)
        }
        #expect(run.progress.lines == lines.count && most > 1)
        // Each token but an answer's last one is computed once.
        #expect(engine.gauge.reading.rows == lines.count * (1400 + 99))
    }

    /// After an interrupt nothing is written of what was not done.
    @Test func anInterruptedBatchEnds() throws {
        let lines = (0..<40).map { Self.line("q\($0)", "What is \(100 + $0) + 2?") }
        let results = try results(lines, stopAfter: 5)
        #expect((5..<40).contains(results.count))
    }

    /// The second answer waits for the prompt that the first reads; the first fails, as the file is lost under its mapping.
    @Test func aLineWhoseFirstAnswerFailsHasItsResult() throws {
        let path = FileManager.default.temporaryDirectory.path + "/sigma-batch-\(UUID().uuidString).gguf"
        defer { try? FileManager.default.removeItem(atPath: path) }
        try Converter.convert(
            Converter.Options(
                input: Self.checkpoint, output: path, type: .q8_0, overrides: try Overrides()))
        let model = try ModelFile(path: path)
        let engine = try Engine(model: model, backend: try CPUBackend(model: model, threadCount: 2))
        let file = try #require(FileHandle(forWritingAtPath: path))
        try file.truncate(atOffset: UInt64(model.byteCount / 4))
        let question = String(repeating: "What is 3 + 4? ", count: 30)
        let results = try results([Self.line("a", question, #""n":3"#)], engine: engine)
        #expect(results["a"]?["response"]?["status_code"]?.integer == 500)
    }
}
