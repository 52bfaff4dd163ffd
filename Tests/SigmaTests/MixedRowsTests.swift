import SampleFiles
import Sigma
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Rows of one step that want different things of the output head: each gets what it would get alone.
@Suite struct MixedRowsTests {
    private static let made = Result { () throws -> ModelFile in
        let path = FileManager.default.temporaryDirectory.path + "/sigma-mixed-\(UUID().uuidString).gguf"
        defer { try? FileManager.default.removeItem(atPath: path) }
        try ScreenedModel.write(to: path, headType: .q8_0)
        return try ModelFile(path: path)
    }

    private static let size = ScreenedModel.shape.vocabularySize

    private static func tokens(_ count: Int, seed: UInt64) -> [Int32] {
        var random = SplitMix64(state: seed)
        return (0..<count).map { _ in Int32(random.next() % 4000) }
    }

    // MARK: The back end

    /// What a row got, as bits.
    private struct Found: Equatable {
        var ids: [Int32] = []
        var bits: [UInt32] = []

        init(_ logits: RowLogits) {
            switch logits {
            case .largest(let list):
                ids = list.map(\.id)
                bits = list.map(\.logit.bitPattern)
            case .all(let all): bits = all.map(\.bitPattern)
            }
        }
    }

    @Test func everyRowGetsTheSameBytesInAnyMixture() throws {
        let backend = try CPUBackend(model: Self.made.get(), threadCount: 2)
        try #require(backend.screensHead)
        // More rows than the head takes at once.
        let rowCount = 70
        let batch = Batch()
        batch.append(Self.tokens(rowCount, seed: 1)[...], to: try backend.makeSequence(kvType: .f16))
        let masks = [
            TokenMask(all: Self.size), TokenMask(vocabularySize: Self.size) { $0 % 2 == 0 },
            TokenMask(vocabularySize: Self.size) { [5, 4000, 5002].contains($0) },
            TokenMask(vocabularySize: Self.size) { $0 == 77 }, TokenMask(vocabularySize: Self.size) { _ in false },
        ]
        let wishes: [LogitRequest.Wish] = [
            .largest(1), .largest(20), .largest(20), .largest(256), .largest(300), .all, .all(comparing: 20),
        ]
        let pass = ForwardPass(layerCount: ScreenedModel.shape.layerCount, backend: backend)
        var random = SplitMix64(state: 2)
        _ = try pass.run(batch, isCancelled: { false }) { backend in
            func read(_ requests: [LogitRequest]) -> [Found?] {
                var found = [Found?](repeating: nil, count: requests.count)
                backend.readLogits(requests) { index, logits in
                    #expect(found[index] == nil, "a request was answered twice")
                    found[index] = Found(logits)
                }
                return found
            }
            for round in 0..<9 {
                let share = [2, 8, 40][round % 3]
                let requests = (0..<rowCount).filter { _ in Int(random.next() % 64) < share }.map { row in
                    LogitRequest(
                        row: row, wish: wishes[Int(random.next() % UInt64(wishes.count))],
                        mask: masks[Int(random.next() % UInt64(masks.count))])
                }
                let found = read(requests)
                for (index, request) in requests.enumerated() {
                    #expect(found[index] == read([request])[0], "row \(request.row): \(request.wish)")
                    guard case .largest(let count) = request.wish, let list = found[index] else { continue }
                    #expect(list.ids.count == min(count, request.mask.count))
                    #expect(list.ids.allSatisfy { request.mask.allows(Int($0)) })
                }
            }
        }
        #expect(backend.headStatistics.misses == 0 && backend.headStatistics.comparedRows > 0)
    }

    /// Rows go through the screen where it alone is needed, and through the full head where that is read anyway.
    @Test func theFullHeadIsReadOnce() throws {
        let backend = try CPUBackend(model: Self.made.get(), threadCount: 2)
        backend.mostScreenedRows = 12
        let all = TokenMask(all: Self.size)
        let batch = Batch()
        batch.append(Self.tokens(12, seed: 3)[...], to: try backend.makeSequence(kvType: .f16))
        let pass = ForwardPass(layerCount: ScreenedModel.shape.layerCount, backend: backend)
        _ = try pass.run(batch, isCancelled: { false }) { _ in
            /// What a mixture adds to the counts, and what its rows add one by one.
            func counts(_ wishes: [LogitRequest.Wish]) -> (together: HeadStatistics, alone: HeadStatistics) {
                let requests = (0..<12).map { LogitRequest(row: $0, wish: wishes[$0 % wishes.count], mask: all) }
                let start = backend.headStatistics
                backend.readLogits(requests) { _, _ in }
                let middle = backend.headStatistics
                for request in requests { backend.readLogits([request]) { _, _ in } }
                return (middle - start, backend.headStatistics - middle)
            }
            var (together, alone) = counts([.largest(20), .largest(1), .largest(40)])
            #expect(together.bytes < alone.bytes, "the planes are read once for many rows")
            (together.bytes, alone.bytes) = (0, 0)
            #expect(together == alone && together.screenedRows > 6)
            #expect(together.screenedRows + together.fallbackRows == 12)

            (together, alone) = counts([.largest(20), .all(comparing: 20), .all, .largest(1), .largest(400)])
            #expect(together.fullRows == 12 && together.screenedRows + together.fallbackRows == 0)
            #expect(alone.screenedRows + alone.fallbackRows == 5 && together.comparedRows == alone.comparedRows)
            #expect(together.bytes < backend.headStatistics.bytes && together.misses == 0)
        }
    }

    // MARK: The scheduler

    @Test func answersSideBySideAreWhatTheyAreAlone() async throws {
        func engine() throws -> Engine {
            try Engine(model: Self.made.get(), backend: CPUBackend(model: Self.made.get(), threadCount: 2))
        }
        let engines = (alone: try engine(), together: try engine())
        func options(_ change: (inout GenerationOptions) -> Void) -> GenerationOptions {
            var options = GenerationOptions(seed: 5, thinks: false, maximumTokens: 24)
            change(&options)
            return options
        }
        let plain = options { $0.temperature = 0.8 }
        let prompts = (0..<5).map { Self.tokens(6 + 3 * $0, seed: UInt64(10 + $0)) }
        let requests = [
            engines.alone.request(prompts[0], plain),
            engines.alone.request(prompts[1], options { $0.temperature = 0.8 }, logProbabilityCount: 3),
            engines.alone.request(prompts[2], options { $0.topK = 0 }),
            engines.alone.request(prompts[3], options { ($0.frequencyPenalty, $0.presencePenalty) = (0.7, 0.4) }),
            engines.alone.request(prompts[4], options { $0.logitBias = [17: 6, 400: 5, 3: -4] }),
        ]
        func counts(_ engine: Engine) -> HeadStatistics { engine.backend.headStatistics }
        var outcomes: [AnswerOutcome] = []
        var sums: [HeadStatistics] = []
        for request in requests {
            let before = counts(engines.alone)
            outcomes.append(try AnswerOutcome(request, on: engines.alone))
            sums.append(counts(engines.alone) - before)
        }
        // The plain one's rows go through the screen, and nothing else does them.
        #expect(sums[0].screenedRows > 12 && sums[0].screenedRows + sums[0].fallbackRows == 24)
        #expect(sums[0].fullRows == sums[0].fallbackRows || sums[0].fullRows == 0)
        #expect(outcomes[1].logProbabilities.count == outcomes[1].ids.count && sums[1].comparedRows > 12)

        let before = counts(engines.together)
        let together = try await AnswerOutcome.together(requests, on: engines.together)
        let counted = counts(engines.together) - before
        #expect(together == outcomes)
        let expected = sums.reduce(HeadStatistics(), +)
        #expect(counted.bytes < expected.bytes, "the answers did not share steps")
        // As many rows, in whatever way.
        func rows(_ counts: HeadStatistics) -> Int { counts.screenedRows + counts.fallbackRows + counts.fullRows }
        #expect(rows(counted) == rows(expected) && counted.screenedRows < expected.screenedRows)
        #expect(counted.misses == 0 && counted.comparedRows == expected.comparedRows)
    }
}
