import SampleFiles
import Sigma
import Testing

/// Rows that may choose among few tokens: what is computed of the head for them is the full head's, bit for bit.
@Suite struct AllowedHeadTests {
    private static let size = ScreenedModel.shape.vocabularySize

    /// Few tokens in few groups, in many, in the head's last group, which is not whole; and none.
    private static let masks = [
        TokenMask(vocabularySize: size) { [0, 1, 15, 16].contains($0) },
        TokenMask(vocabularySize: size) { $0 % 97 == 5 },
        TokenMask(vocabularySize: size) { $0 >= 4990 },
        TokenMask(vocabularySize: size) { $0 == 2500 },
        TokenMask(vocabularySize: size) { _ in false },
    ]

    @Test(arguments: KernelTests.levels, ScreenedHeadTests.headTypes)
    func everyLevelGivesTheFullHeadsBits(level: String, type: WeightType) throws {
        let model = try ScreenedHeadTests.model(type)
        for threads in [1, 3] {
            let backend = try CPUBackend(
                model: model, threadCount: threads, instructionSet: InstructionSet(named: level))
            let tokens = ScreenedHeadTests.tokens(7)
            for (index, mask) in Self.masks.enumerated() {
                for count in [1, 20, 400] {
                    let before = backend.headStatistics
                    let (found, full) = try ScreenedHeadTests.largest(backend, tokens, count: count, mask: mask)
                    #expect(found == full, "mask \(index), \(count) of the largest")
                    #expect(found.allSatisfy { $0.count == min(count, mask.count) })
                    let counts = backend.headStatistics - before
                    // Where the allowed tokens lie in many groups, the screen can be cheaper for few of the largest.
                    let mayBeScreened = index == 1 && count < 400
                    #expect(
                        counts.allowedRows == tokens.count || mayBeScreened, "mask \(index), \(count) of the largest")
                }
            }
        }
    }

    /// A head without planes.
    @Test func headsWithoutPlanesAreCutToo() throws {
        let engine = try SmallModel.engine()
        let size = engine.vocabularySize
        let mask = TokenMask(vocabularySize: size) { $0 % 128 == 3 }
        let backend = try #require(engine.backend as? CPUBackend)
        #expect(!backend.screensHead)
        let tokens = SmallModel.tokens(5, seed: 2)
        let (found, full) = try ScreenedHeadTests.largest(backend, tokens, count: 20, mask: mask)
        #expect(found == full && found.allSatisfy { $0.count == mask.count })
        #expect(backend.headStatistics.allowedRows == tokens.count)
    }

    /// Also where others have asked for some before.
    @Test func whoAsksForNoneGetsNone() throws {
        let backend = try CPUBackend(model: ScreenedHeadTests.model(.q8_0), threadCount: 2)
        for count in [20, 0] {
            let (found, full) = try ScreenedHeadTests.largest(
                backend, ScreenedHeadTests.tokens(9), count: count, mask: TokenMask(all: Self.size))
            #expect(found == full && found.allSatisfy { $0.count == count })
        }
    }

    /// Where many tokens are allowed the head is read as a whole, or screened.
    @Test func manyTokensAreNotComputedOneByOne() throws {
        let backend = try CPUBackend(model: ScreenedHeadTests.model(.q8_0), threadCount: 2)
        for step in [1, 2, 9] {
            let mask = TokenMask(vocabularySize: Self.size) { Int($0) % step == 0 }
            let (found, full) = try ScreenedHeadTests.largest(
                backend, ScreenedHeadTests.tokens(4), count: 20, mask: mask)
            #expect(found == full)
        }
        #expect(backend.headStatistics.allowedRows == 0)
    }

    /// What is read is what the allowed tokens' groups have.
    @Test func onlyTheirGroupsAreRead() throws {
        let backend = try CPUBackend(model: ScreenedHeadTests.model(.q8_0), threadCount: 1)
        let batch = Batch()
        batch.append([1], to: try backend.makeSequence(kvType: .f16))
        let pass = ForwardPass(layerCount: ScreenedModel.shape.layerCount, backend: backend)
        _ = try pass.run(batch, isCancelled: { false }) { backend in
            let before = (backend.stepBytes, (backend as! CPUBackend).headStatistics)
            backend.forEachRow(1, largest: 20, mask: Self.masks[0]) { _, list in #expect(list.count == 4) }
            let groupBytes = WeightType.q8_0.groupBytes(ScreenedModel.shape.hiddenSize)
            let counts = (backend as! CPUBackend).headStatistics - before.1
            #expect(backend.stepBytes - before.0 == 2 * groupBytes && counts.bytes == 2 * groupBytes)
            #expect(counts.exactRows == 2)
        }
    }
}
