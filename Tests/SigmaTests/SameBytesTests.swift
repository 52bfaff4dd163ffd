import Sigma
import Testing

/// Same prompt, file and instruction set: the same bytes, for any thread count, chunking, batch and reuse of the cache.
@Suite struct SameBytesTests {
    /// Long enough for several splits of attention, with a ragged end.
    static func tokens(_ count: Int, vocabulary: Int, seed: UInt64) -> [Int32] {
        var random = SplitMix64(state: seed)
        return (0..<count).map { _ in Int32(random.next() % UInt64(vocabulary)) }
    }

    static let cases: [(String, KVType)] = [
        ("sigma-top1", .f16), ("sigma-topk-per-layer", .q8_0), ("sigma-shared-experts", .f32),
        ("sigma-head-dim-96", .f16), ("sigma-odd-sizes", .f16), ("qwen3moe-mixed-layers", .f16),
    ]

    @Test(arguments: 0..<cases.count) func quantizedModelsGiveTheSameBytes(index: Int) throws {
        let (name, kvType) = Self.cases[index]
        let model = try ReferenceFixture.named(name).model(.q8_0)
        try #require(kvType != .q8_0 || model.configuration.headDim % 32 == 0)
        let vocabulary = model.configuration.vocabularySize
        let tokens = Self.tokens(530, vocabulary: vocabulary, seed: 7)
        for level in KernelTests.levels {
            let whole = try Runner(model, threads: 1, level: level).logits(tokens, pieces: [530], kvType: kvType)
            for (threads, pieces) in [(2, [530]), (3, [1]), (1, [255, 2, 1, 100]), (2, [7, 64, 3])] {
                let found = try Runner(model, threads: threads, level: level).logits(
                    tokens, pieces: pieces, kvType: kvType)
                #expect(found == whole, "\(level), \(threads) threads, pieces \(pieces)")
            }
            // Beside other sequences of other lengths.
            let others = [
                Self.tokens(40, vocabulary: vocabulary, seed: 8), tokens,
                Self.tokens(300, vocabulary: vocabulary, seed: 9),
            ]
            let beside = try Runner(model, threads: 2, level: level).logits(others, pieces: [3, 90], kvType: kvType)
            #expect(beside[1] == whole, "\(level), in a batch")
        }
    }

    @Test func floatModelsDoNotDependOnThreads() throws {
        for type in [WeightType.f32, .bf16, .f16] {
            let model = try ReferenceFixture.named("sigma-shared-experts").model(type)
            let tokens = Self.tokens(300, vocabulary: model.configuration.vocabularySize, seed: 3)
            let one = try Runner(model, threads: 1).logits(tokens, pieces: [300], kvType: .f16)
            for threads in [2, 3] {
                #expect(try Runner(model, threads: threads).logits(tokens, pieces: [300], kvType: .f16) == one)
            }
        }
    }

    @Test func truncatedSequencesGoOnAsIfNew() throws {
        let model = try ReferenceFixture.named("sigma-top1").model(.q8_0)
        let runner = try Runner(model)
        let tokens = Self.tokens(400, vocabulary: model.configuration.vocabularySize, seed: 5)
        let whole = try runner.logits(tokens, kvType: .f16)
        let state = try runner.backend.makeSequence(kvType: .f16)
        let batch = Batch()
        func feed(_ slice: ArraySlice<Int32>) throws -> [Float] {
            batch.removeAll()
            batch.append(slice, to: state)
            var logits: [Float] = []
            _ = try runner.pass.run(batch, isCancelled: { false }) { backend in
                for row in 0..<slice.count { logits += backend.head(rows: row..<(row + 1)) }
            }
            return logits
        }
        _ = try feed(Self.tokens(390, vocabulary: model.configuration.vocabularySize, seed: 6)[...])
        state.truncate(to: 0)
        _ = try feed(tokens[..<350])
        state.truncate(to: 260)
        let found = try feed(tokens[260...])
        #expect(found == Array(whole[(260 * runner.vocabulary)...]))
        #expect(state.length == 400)
    }

    @Test func cancelledStepsChangeNothing() throws {
        let model = try ReferenceFixture.named("sigma-top1").model(.q8_0)
        let runner = try Runner(model)
        let tokens = Self.tokens(30, vocabulary: model.configuration.vocabularySize, seed: 5)
        let whole = try runner.logits(tokens, kvType: .f16)
        let state = try runner.backend.makeSequence(kvType: .f16)
        let batch = Batch()
        batch.append(tokens[..<20], to: state)
        _ = try runner.pass.run(batch, isCancelled: { false }) { _ in }
        var asked = 0
        batch.removeAll()
        batch.append(tokens[5..<15], to: state)
        let finished = try runner.pass.run(
            batch,
            isCancelled: {
                asked += 1
                return asked > 1
            }
        ) { _ in Issue.record("a cancelled step has no logits") }
        #expect(!finished && state.length == 20)
        batch.removeAll()
        batch.append(tokens[20...], to: state)
        var logits: [Float] = []
        _ = try runner.pass.run(batch, isCancelled: { false }) { logits += $0.head(rows: 0..<10) }
        #expect(logits == Array(whole[(20 * runner.vocabulary)...]))
    }
}
