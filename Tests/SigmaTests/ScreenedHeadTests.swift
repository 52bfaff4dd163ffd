import CSigma
import SampleFiles
import Sigma
import SigmaConversion
import SigmaStudies
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// The screened output head against the full one: the same tokens, logits and order, bit for bit.
@Suite struct ScreenedHeadTests {
    static let headTypes: [WeightType] = [.q4_0, .q6_k, .q8_0, .bf16]

    private static func file(_ bytes: [UInt8]) throws -> ModelFile {
        let path = FileManager.default.temporaryDirectory.path + "/sigma-screened-\(UUID().uuidString).gguf"
        defer { try? FileManager.default.removeItem(atPath: path) }
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        return try ModelFile(path: path)
    }

    private static func bytes(_ headType: WeightType, screening: HeadScreening = .on, type: WeightType = .q8_0) throws
        -> [UInt8]
    {
        let path = FileManager.default.temporaryDirectory.path + "/sigma-screened-\(UUID().uuidString).gguf"
        defer { try? FileManager.default.removeItem(atPath: path) }
        try ScreenedModel.write(to: path, headType: headType, screening: screening, type: type)
        return Array(try Data(contentsOf: URL(fileURLWithPath: path)))
    }

    /// Made once for a run of the tests.
    static let files: [WeightType: [UInt8]] = Dictionary(
        uniqueKeysWithValues: headTypes.map { ($0, (try? bytes($0)) ?? []) })

    static let allTokens = TokenMask(all: ScreenedModel.shape.vocabularySize)

    static func model(_ type: WeightType) throws -> ModelFile { try file(#require(files[type])) }

    static func tokens(_ count: Int, seed: UInt64 = 3) -> [Int32] {
        var random = SplitMix64(state: seed)
        return (0..<count).map { _ in Int32(random.next() % UInt64(ScreenedModel.shape.vocabularySize)) }
    }

    /// Of each row of one step, the largest logits: those that the back end finds (by the screen if not more than `screened` rows are to be found
    /// together), and those among all.
    static func largest(
        _ backend: CPUBackend, _ tokens: [Int32], count: Int, mask: TokenMask? = nil, layers: Int = 2,
        screened: Int = .max
    ) throws -> (found: [[TokenLogit]], full: [[TokenLogit]]) {
        backend.mostScreenedRows = screened
        let mask = mask ?? TokenMask(all: backend.configuration.vocabularySize)
        let batch = Batch()
        batch.append(tokens[...], to: try backend.makeSequence(kvType: .f16))
        let pass = ForwardPass(layerCount: layers, backend: backend)
        var found: [[TokenLogit]] = []
        var full: [[TokenLogit]] = []
        _ = try pass.run(batch, isCancelled: { false }) { backend in
            backend.forEachRow(tokens.count, largest: count, mask: mask) { row, list in
                #expect(row == found.count)
                found.append(list)
            }
            var selection = LargestLogits()
            backend.forEachRow(of: 0..<tokens.count) { _, logits in
                selection.select(count, of: logits, mask: mask)
                full.append(selection.list)
            }
        }
        return (found, full)
    }

    @Test(arguments: KernelTests.levels, headTypes) func everyLevelFindsTheLargest(level: String, type: WeightType)
        throws
    {
        let model = try Self.model(type)
        let backend = try CPUBackend(
            model: model, threadCount: 2, instructionSet: InstructionSet(named: level))
        #expect(backend.screensHead)
        // More rows than the head takes at once.
        let tokens = Self.tokens(41)
        for count in [1, 2, 20, 64] {
            let (found, full) = try Self.largest(backend, tokens, count: count)
            #expect(found == full, "\(count) of \(type)")
            #expect(found.allSatisfy { $0.count == count })
            guard count == 20 else { continue }
            // The screen decides, and reads a part of the head. (Of so few rows the 64 largest are too many for it.)
            let counts = backend.headStatistics
            #expect(counts.screenedRows + counts.fallbackRows == 3 * 41)
            #expect(counts.screenedRows > 3 * 35, "\(counts)")
            #expect(counts.exactRows < 3 * 41 * ScreenedModel.shape.vocabularySize / 8)
        }
    }

    /// Rows beyond what the screen takes together are the full head's, which finds the same for any threads and masks.
    @Test(arguments: headTypes) func manyRowsAreTheFullHeads(type: WeightType) throws {
        let model = try Self.model(type)
        let size = ScreenedModel.shape.vocabularySize
        let masks = [
            TokenMask(vocabularySize: size) { $0 % 3 == 1 }, TokenMask(vocabularySize: size) { $0 == 5000 },
            TokenMask(vocabularySize: size) { _ in false },
        ]
        for threads in 1...3 {
            let backend = try CPUBackend(model: model, threadCount: threads)
            let limit = backend.mostScreenedRows
            #expect((1..<9).contains(limit))
            for (rows, isScreened) in [(limit, true), (limit + 1, false), (41, false)] {
                for count in [1, 20, 300] where !(isScreened && count == 300) {
                    let before = backend.headStatistics
                    let (found, full) = try Self.largest(backend, Self.tokens(rows), count: count, screened: limit)
                    #expect(found == full && found.allSatisfy { $0.count == count })
                    let counts = backend.headStatistics - before
                    // All rows are read once more for the comparison.
                    #expect(counts.screenedRows + counts.fallbackRows == (isScreened ? rows : 0))
                    #expect(counts.fullRows == (isScreened ? rows : 2 * rows))
                }
            }
            for mask in masks {
                let (found, full) = try Self.largest(backend, Self.tokens(9), count: 20, mask: mask, screened: limit)
                #expect(found == full && found.allSatisfy { $0.count == min(20, mask.count) })
            }
        }
    }

    @Test(arguments: headTypes) func threadsAndBatchesChangeNothing(type: WeightType) throws {
        let model = try Self.model(type)
        let tokens = Self.tokens(33, seed: 9)
        var lists: [[[TokenLogit]]] = []
        for threads in 1...3 {
            let backend = try CPUBackend(model: model, threadCount: threads)
            lists.append(try Self.largest(backend, tokens, count: 20).found)
            // One row at a time.
            let sequence = try backend.makeSequence(kvType: .f16)
            let pass = ForwardPass(layerCount: 2, backend: backend)
            var alone: [[TokenLogit]] = []
            let batch = Batch()
            for token in tokens {
                batch.removeAll()
                batch.append([token], to: sequence)
                _ = try pass.run(batch, isCancelled: { false }) {
                    $0.forEachRow(1, largest: 20, mask: Self.allTokens) { alone.append($1) }
                }
            }
            lists.append(alone)
        }
        for list in lists.dropFirst() { #expect(list == lists[0]) }
    }

    @Test(arguments: headTypes) func masksComeBeforeEverything(type: WeightType) throws {
        let backend = try CPUBackend(model: try Self.model(type), threadCount: 2)
        let size = ScreenedModel.shape.vocabularySize
        let tokens = Self.tokens(5)
        var random = SplitMix64(state: 7)
        let half = (0..<size).map { _ in random.next() & 1 == 0 }
        let best = Set(try Self.largest(backend, tokens, count: 64).full.joined().map(\.id))
        // Without the best; with few; with fewer than are wanted; with none.
        let masks: [[Bool]] = [
            half, (0..<size).map { !best.contains(Int32($0)) }, (0..<size).map { $0 % 50 == 3 },
            (0..<size).map { $0 % 1700 == 5 }, (0..<size).map { _ in false },
        ]
        for mask in masks {
            for count in [1, 20] {
                let (found, full) = try Self.largest(backend, tokens, count: count, mask: TokenMask(mask))
                #expect(found == full)
                #expect(found.joined().allSatisfy { mask[Int($0.id)] })
                #expect(found.allSatisfy { $0.count == min(count, mask.count { $0 }) })
            }
        }
    }

    /// The rows of every group are those of the first: 5003 / 16 times the same logits.
    @Test(arguments: [1, 5, 20]) func tiesGoToTheLowestId(count: Int) throws {
        var bytes = try #require(Self.files[.q8_0])
        let model = try Self.model(.q8_0)
        let copied = 40
        for (name, unit) in [
            (ModelFileFormat.head, 1), (ModelFileFormat.screenCoarse, 1), (ModelFileFormat.screenFine, 16),
        ] {
            let tensor = try #require(model.gguf.tensor(name))
            let size = tensor.dimensions[0] * unit
            let first = Array(bytes[tensor.offset..<tensor.offset + size])
            for group in 1..<copied {
                bytes.replaceSubrange(tensor.offset + group * size..<tensor.offset + (group + 1) * size, with: first)
            }
        }
        let backend = try CPUBackend(model: try Self.file(bytes), threadCount: 2)
        // Only the equal rows.
        let equal = TokenMask(vocabularySize: ScreenedModel.shape.vocabularySize, where: { $0 < 16 * copied })
        let (found, full) = try Self.largest(backend, Self.tokens(6), count: count, mask: equal)
        #expect(found == full)
        for list in found { #expect(Set(list.map(\.logit)).count == 1 && list.map(\.id) == list.map(\.id).sorted()) }
    }

    /// Margins of a width that lets everything through: the full head decides, and says so.
    @Test func tooManyCandidatesAreTheFullHeads() throws {
        let backend = try CPUBackend(model: try Self.model(.q6_k), threadCount: 2)
        backend.screenDeviations = 1e6
        let (found, full) = try Self.largest(backend, Self.tokens(35), count: 20)
        #expect(found == full)
        #expect(backend.headStatistics.fallbackRows == 35 && backend.headStatistics.screenedRows == 0)
        // More than the screen takes are not its business.
        let (many, all) = try Self.largest(backend, Self.tokens(2), count: 400)
        #expect(many == all && many[0].count == 400)
        #expect(backend.headStatistics.fallbackRows == 35)
    }

    @Test(arguments: headTypes) func hostileStates(type: WeightType) throws {
        let backend = try CPUBackend(model: try Self.model(type), threadCount: 2)
        let hidden = ScreenedModel.shape.hiddenSize
        let plain = KernelTests.values(hidden, seed: 5)
        var states: [[Float]] = [plain]
        // Nothing to go by: all logits are equal, or no numbers.
        var lost = [[Float](repeating: 0, count: hidden)]
        for value in [Float.nan, .infinity, -.infinity, 1e30] {
            var state = plain
            state[17] = value
            lost.append(state)
        }
        lost.append(plain.map { $0 * 1e-36 })
        states += [plain.map { $0 * 1e-6 }, plain.map { $0 * 1e6 }]
        for column in [0, 100, hidden - 1] {
            var state = plain
            state[column] = 300
            states.append(state)
        }
        states.append((0..<hidden).map { $0 == 9 ? 1 : 0 })
        for rows in [states, lost] {
            let results = try backend.compareHeads(rows.flatMap { $0 }, largest: 20, mask: Self.allTokens)
            for (index, result) in results.enumerated() {
                #expect(!result.isMiss, "state \(index)")
                if rows == states { #expect(result.full.count == 20) }
            }
            if rows[0] == states[0] { #expect(results.allSatisfy { $0.screened != nil }) }
            if rows[0] != states[0] { #expect(results.allSatisfy { $0.screened == nil }) }
        }
    }

    @Test func theSurveyTellsMissesFromHits() throws {
        let intact = try Self.model(.q4_0)
        let damaged = try Self.file(ScreenedModel.damagingPlane(try #require(Self.files[.q4_0]), of: intact))
        for (model, isDamaged) in [(intact, false), (damaged, true)] {
            let engine = try Engine(model: model, backend: CPUBackend(model: model, threadCount: 2))
            let survey = try HeadSurvey(engine, largest: 20, seed: 1)
            let states = (0..<40).flatMap { KernelTests.values(ScreenedModel.shape.hiddenSize, seed: UInt64($0 + 1)) }
            try survey.add(states, kinds: StateKind.allCases, isCancelled: { false })
            let real = try #require(survey.tallies[.real])
            #expect(real.positions == 40)
            if isDamaged {
                #expect(real.misses > 10 && real.misses(at: 6) > 10)
            } else {
                for kind in [StateKind.real, .tiny, .outlier, .random, .tied, .leaning] {
                    let tally = try #require(survey.tallies[kind])
                    #expect(tally.positions == 40 && tally.misses == 0, "\(kind): \(tally)")
                }
                // Narrow margins miss: the count of what was needed says so, and the screen itself agrees.
                #expect(real.misses(at: 0.5) > 0 && real.misses(at: 6) == 0)
                let narrow = try HeadSurvey(engine, largest: 20, deviations: 0.25, seed: 1)
                try narrow.add(states, kinds: [.real], isCancelled: { false })
                #expect(narrow.tallies[.real]!.misses > 0)
            }
        }
    }

    @Test func comparingCountsWhatDiffers() throws {
        let intact = try Self.model(.q4_0)
        let damaged = try Self.file(ScreenedModel.damagingPlane(try #require(Self.files[.q4_0]), of: intact))
        for (model, isDamaged) in [(intact, false), (damaged, true)] {
            let backend = try CPUBackend(model: model, threadCount: 2)
            let tokens = Self.tokens(35)
            let expected = try Self.largest(backend, tokens, count: 20).full
            let batch = Batch()
            batch.append(tokens[...], to: try backend.makeSequence(kvType: .f16))
            let before = backend.headStatistics
            var found: [[TokenLogit]] = []
            _ = try ForwardPass(layerCount: 2, backend: backend).run(batch, isCancelled: { false }) { backend in
                var selection = LargestLogits()
                let requests = tokens.indices.map {
                    LogitRequest(row: $0, wish: .all(comparing: 20), mask: Self.allTokens)
                }
                backend.readLogits(requests) { index, logits in
                    guard case .all(let logits) = logits, index == found.count else {
                        Issue.record("row \(index) is out of order, or has not all its logits")
                        return
                    }
                    selection.select(20, of: logits, mask: Self.allTokens)
                    found.append(selection.list)
                }
            }
            // The full head decides, whatever the screen says.
            #expect(found == expected)
            let counts = backend.headStatistics - before
            #expect(counts.screenedRows == 0 && counts.comparedRows > 20)
            if isDamaged { #expect(counts.misses > 5) } else { #expect(counts.misses == 0) }
        }
    }

    // MARK: the file

    @Test func planesComeAndGo() throws {
        let folder = FileManager.default.temporaryDirectory.path
        let names = (0..<4).map { _ in "\(folder)/sigma-screened-\(UUID().uuidString).gguf" }
        defer { for name in names { try? FileManager.default.removeItem(atPath: name) } }
        func convert(_ input: String, _ output: String, _ screening: HeadScreening) throws -> ModelFile {
            try Converter.convert(
                Converter.Options(input: input, output: output, overrides: Overrides(), headScreening: screening))
            let file = try ModelFile(path: output)
            try file.verify()
            return file
        }
        try Data(#require(Self.files[.q6_k])).write(to: URL(fileURLWithPath: names[0]))
        let with = try ModelFile(path: names[0])
        #expect(with.weights.screen != nil)
        // A small head gets none by itself.
        #expect(try convert(names[0], names[1], .auto).weights.screen == nil)
        #expect(try Data(contentsOf: URL(fileURLWithPath: names[1])).count < with.byteCount)
        let again = try convert(names[1], names[2], .on)
        #expect(again.weights.screen != nil)
        #expect(
            try Data(contentsOf: URL(fileURLWithPath: names[2])) == Data(contentsOf: URL(fileURLWithPath: names[0])))
        // A file without planes works, in full.
        let backend = try CPUBackend(model: try ModelFile(path: names[1]), threadCount: 2)
        #expect(!backend.screensHead)
        let (found, full) = try Self.largest(backend, Self.tokens(3), count: 20)
        #expect(found == full && backend.headStatistics.screenedRows == 0)
        // A head of odd width cannot have any.
        let odd = ReferenceFixture.folder + "/sigma-odd-sizes"
        #expect(sigmaError { _ = try convert(odd, names[3], .on) }?.kind == .usage)
    }

    @Test func tiedEmbeddingsAreScreenedToo() throws {
        let path = FileManager.default.temporaryDirectory.path + "/sigma-screened-\(UUID().uuidString).gguf"
        defer { try? FileManager.default.removeItem(atPath: path) }
        try Converter.convert(
            Converter.Options(
                input: ReferenceFixture.folder + "/sigma-tied", output: path, type: .q8_0, overrides: Overrides(),
                headScreening: .on))
        let model = try ModelFile(path: path)
        try model.verify()
        let backend = try CPUBackend(model: model, threadCount: 2)
        #expect(backend.screensHead)
        let tokens = (0..<9).map { Int32($0 * 5 % model.configuration.vocabularySize) }
        let (found, full) = try Self.largest(
            backend, tokens, count: 8, layers: model.configuration.layerCount)
        #expect(found == full)
    }

    /// What the planes take is planned, and read into memory of the process's own; without the screen neither is.
    @Test func budgetsCountThePlanes() throws {
        let model = try Self.model(.q4_0)
        let planes = try #require(model.weights.screen)
        func backend(fullHead: Bool) throws -> CPUBackend {
            let probe = try CPUBackend(model: model, threadCount: 2)
            let least = probe.memoryPlan.recordsPerToken * probe.memoryPlan.slotBytes
            return try CPUBackend(
                model: model, threadCount: 2, limits: MemoryLimits(cache: .bytes(least)), fullHead: fullHead)
        }
        let screened = try backend(fullHead: false)
        let full = try backend(fullHead: true)
        let pages = { (bytes: Int) in (bytes + 4095) / 4096 * 4096 }
        #expect(
            screened.memoryPlan.denseBytes - full.memoryPlan.denseBytes
                == pages(planes.coarseBytes) + pages(planes.fineBytes))
        let tokens = Self.tokens(20)
        let a = try Self.largest(screened, tokens, count: 20)
        let b = try Self.largest(full, tokens, count: 20)
        #expect(a.found == b.full && b.found == b.full && a.full == b.full)
        #expect(screened.headStatistics.screenedRows > 0 && full.headStatistics.screenedRows == 0)
    }
}
