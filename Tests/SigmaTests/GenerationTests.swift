import SampleFiles
import Sigma
import SigmaConversion
import Synchronization
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// The state machine of one generation where a trained model alone would not lead it.
@Suite struct GenerationTests {
    /// A back end that chooses given tokens, whatever it is asked.
    final class Script: ForwardingBackend, @unchecked Sendable {
        let backend: CPUBackend
        let tokens: [Int32]
        private var next = 0
        private var logits: UnsafeMutableBufferPointer<Float>
        private var largest = LargestLogits()

        init(_ backend: CPUBackend, _ tokens: [Int32], vocabulary: Int) {
            self.tokens = tokens
            logits = .allocate(capacity: vocabulary)
            self.backend = backend
        }
        deinit { logits.deallocate() }

        var rowsAreIndependent: Bool { false }
        var stepBytes: Int { 0 }

        func head(rows: Range<Int>) -> UnsafeBufferPointer<Float> {
            logits.update(repeating: 0)
            logits[Int(tokens[min(next, tokens.count - 1)])] = 100
            next += 1
            return UnsafeBufferPointer(logits)
        }

        func readLogits(_ requests: [LogitRequest], _ body: (_ index: Int, _ logits: RowLogits) -> Void) {
            for (index, request) in requests.enumerated() {
                let logits = head(rows: request.row..<request.row + 1)
                switch request.wish {
                case .all: body(index, .all(logits))
                case .largest(let count):
                    largest.select(count, of: logits, mask: request.mask)
                    largest.list.withUnsafeBufferPointer { body(index, .largest($0)) }
                }
            }
        }
    }

    struct Outcome {
        var phases: [String] = []
        var thinking = ""
        var answer = ""
        var statistics = Statistics()
    }

    /// What becomes of `written`, and of the end of turn after it.
    static func run(
        _ written: String, from start: ThinkingSplitter.State,
        options: GenerationOptions = GenerationOptions(temperature: 0)
    ) async throws -> Outcome {
        let model = try DemoModel.file()
        let tokenizer = try Tokenizer(try #require(try model.tokenizerDefinition()))
        let end = try #require(tokenizer.idOfSpecial(named: "<|end|>"))
        let script = Script(
            try CPUBackend(model: model, threadCount: 1),
            tokenizer.encode(written, recognizingSpecials: false) + [end],
            vocabulary: model.configuration.vocabularySize)
        let engine = try Engine(model: model, backend: script)
        let outcome = Mutex(Outcome())
        let generation = try Generation(
            GenerationRequest(tokens: [1, 2, 3], start: start, options: options), on: engine.makeTimeline(kvType: .f16),
            engine: engine
        ) { event in
            outcome.withLock { outcome in
                func add(_ token: AnswerToken) {
                    if token.phase == .thinking { outcome.thinking += token.text } else { outcome.answer += token.text }
                }
                switch event {
                case .token(let token):
                    outcome.phases.append(token.phase.rawValue)
                    add(token)
                case .finished(let statistics, let remainder):
                    outcome.statistics = statistics
                    if let remainder { add(remainder) }
                default: break
                }
            }
        }
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            engine.run(generation) { continuation.resume(with: $0) }
        }
        return outcome.withLock { $0 }
    }

    @Test func theModelMayDecideToThink() async throws {
        let thought = try await Self.run("\n<think>1+2</think>3", from: .undetermined)
        #expect(thought.thinking == "1+2" && thought.answer == "3")
        #expect(
            thought.statistics.answerTokens == 1 && thought.phases.last == "answer"
                && thought.phases.first == "thinking")
        #expect(thought.phases.count == thought.statistics.generatedTokens)

        let straight = try await Self.run("\n\nThree.", from: .undetermined)
        #expect(straight.thinking.isEmpty && straight.answer == "\n\nThree.")
        #expect(straight.statistics.thinkingTokens == 0 && straight.phases.allSatisfy { $0 == "answer" })
    }

    @Test func whiteSpaceWithoutEndIsAnAnswer() async throws {
        let options = GenerationOptions(temperature: 0, maximumTokens: 30)
        let outcome = try await Self.run(String(repeating: "\n ", count: 200), from: .undetermined, options: options)
        #expect(outcome.statistics.reason == .length && outcome.statistics.answerTokens == 30)
        let short = try await Self.run(
            String(repeating: "\n ", count: 20), from: .undetermined,
            options: GenerationOptions(temperature: 0, maximumTokens: 2))
        #expect(short.statistics.reason == .length && short.statistics.answerTokens == 2)
    }

    @Test func textIsNeverLost() async throws {
        // A tag that never comes, a character that is cut, and a stop string that begins and is not finished.
        let cases: [(String, ThinkingSplitter.State, String, String)] = [
            ("a </thi", .thinking, "a </thi", ""), ("a</think>b <", .thinking, "a", "b <"),
            ("ends in St", .answer, "", "ends in St"), ("<thin", .undetermined, "", "<thin"),
            ("1</think>.\nSTOP more", .thinking, "1", ".\n"),
        ]
        for (text, start, thinking, answer) in cases {
            let outcome = try await Self.run(
                text, from: start, options: GenerationOptions(temperature: 0, stopStrings: ["STOP", "Stop"]))
            #expect(outcome.thinking == thinking && outcome.answer == answer, "\(text): \(outcome)")
            #expect(outcome.statistics.reason == .stop)
        }
    }

    /// A weight that is not a number must not become an answer.
    @Test func brokenWeightsAreNoticed() async throws {
        let path = try FaultTests.temporaryModel()
        defer { try? FileManager.default.removeItem(atPath: path) }
        let tensor = try #require(try GGUFFile(path: path).tensor("blk.0.attn_v.weight"))
        var bytes = try Data(contentsOf: URL(fileURLWithPath: path))
        // The first row's first scale, behind the values of a group.
        let offset = try Self.offset(of: tensor, in: path) + 256 / 32 * 512
        bytes[offset] = 0x00
        bytes[offset + 1] = 0x7e
        try bytes.write(to: URL(fileURLWithPath: path))
        let session = try await SigmaModel.load(from: path).makeSession()
        let error = await #expect(throws: SigmaError.self) { try await session.respond(to: "What is 1 + 2?") }
        #expect(error?.kind == .damaged)
    }

    private static func offset(of tensor: GGUFFile.Tensor, in path: String) throws -> Int {
        let file = try GGUFFile(path: path)
        return file.bytes(tensor).baseAddress! - file.file.bytes.baseAddress!
    }
}
