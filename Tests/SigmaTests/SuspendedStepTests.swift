import Sigma
import Testing

/// A step that makes way for others between its layers gives what it would have given, as they do.
@Suite struct SuspendedStepTests {
    /// Runs one-row and few-row steps of other sequences before every layer of a long one.
    final class EveryLayer: StepInterlude {
        let body: () -> Void
        private(set) var count = 0

        init(_ body: @escaping () -> Void) { self.body = body }

        func isDue() -> Bool { true }

        func runOthers() {
            count += 1
            body()
        }
    }

    private static func tokens(_ count: Int, seed: UInt64, vocabulary: Int) -> [Int32] {
        var random = SplitMix64(state: seed)
        return (0..<count).map { _ in Int32(random.next() % UInt64(vocabulary)) }
    }

    /// Logits of the step's last row.
    private static func step(
        _ pass: ForwardPass, _ sequence: SequenceState, _ tokens: [Int32], interlude: (any StepInterlude)? = nil
    ) throws -> [Float] {
        let batch = Batch()
        batch.append(tokens[...], to: sequence)
        var logits: [Float] = []
        let completed = try pass.run(batch, interlude: interlude, isCancelled: { false }) {
            logits = Array($0.head(rows: tokens.count - 1..<tokens.count))
        }
        #expect(completed)
        return logits
    }

    @Test(arguments: [KVType.f16, .q8_0], [nil, 4 << 30]) func bothGiveWhatTheyGiveAlone(kvType: KVType, memory: Int?)
        throws
    {
        let model = try DemoModel.file()
        let size = model.configuration.vocabularySize
        let long = Self.tokens(90, seed: 1, vocabulary: size)
        let others = (0..<3).map { Self.tokens([1, 2, 19][$0], seed: UInt64($0 + 2), vocabulary: size) }
        func makePass() throws -> ForwardPass {
            let backend = try CPUBackend(
                model: model, threadCount: 2, limits: MemoryLimits(memory: memory))
            try #require(backend.canSuspend)
            return ForwardPass(layerCount: model.configuration.layerCount, backend: backend)
        }

        let alone = try makePass()
        let sequence = try alone.backend.makeSequence(kvType: kvType)
        let expected = try [long, long].map { try Self.step(alone, sequence, $0) }
        let expectedBytes = alone.backend.stepBytes
        let expectedOthers = try others.map { tokens in
            let sequence = try alone.backend.makeSequence(kvType: kvType)
            return try (1..<model.configuration.layerCount).flatMap { _ in
                [try Self.step(alone, sequence, tokens)]
            }
        }

        let pass = try makePass()
        let suspended = try pass.backend.makeSequence(kvType: kvType)
        for (round, expected) in expected.enumerated() {
            let sequences = try others.map { _ in try pass.backend.makeSequence(kvType: kvType) }
            var results: [[[Float]]] = others.map { _ in [] }
            let interlude = EveryLayer {
                for (index, tokens) in others.enumerated() {
                    do { results[index].append(try Self.step(pass, sequences[index], tokens)) } catch {
                        Issue.record(error)
                    }
                }
            }
            #expect(try Self.step(pass, suspended, long, interlude: interlude) == expected, "step \(round)")
            #expect(interlude.count == model.configuration.layerCount - 1)
            #expect(results == expectedOthers)
        }
        #expect(suspended.length == 180)
        // What the others read is theirs.
        #expect(pass.backend.stepBytes == expectedBytes)
    }
}
