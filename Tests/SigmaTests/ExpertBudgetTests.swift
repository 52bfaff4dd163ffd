import SampleFiles
import Sigma
import SigmaConversion
import SystemLibrary
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Models under a byte budget: the same bytes out, whatever is in memory.
@Suite struct ExpertBudgetTests {
    static let models: [(String, KVType)] = [
        ("sigma-top1", .f16), ("sigma-topk-per-layer", .q8_0), ("sigma-shared-experts", .f32),
        ("qwen3moe-mixed-layers", .f16),
    ]

    @Test(arguments: 0..<models.count) func everyCacheGivesTheSameBytes(index: Int) throws {
        let (name, kvType) = Self.models[index]
        let model = try ReferenceFixture.named(name).model(.q8_0)
        let table = ExpertRecordTable(model)
        let tokens = SameBytesTests.tokens(300, vocabulary: model.configuration.vocabularySize, seed: 7)
        // A long piece, short ones, and single tokens.
        let pieces = [200, 30, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3, 9]
        let resident = try Runner(model).logits(tokens, pieces: pieces, kvType: kvType)
        let least = table.recordsPerToken
        let most = table.presentCount - 1
        for slots in Set([least, min(most, least + 1), (least + most) / 2, most]).sorted() {
            for (policy, prediction, threads) in [
                (EvictionPolicyKind.lru, PredictionMode.off, 2), (.slru, .on, 1), (.lfu, .on, 3), (.lru, .auto, 2),
            ] {
                let limits = MemoryLimits(
                    cache: .bytes(slots * table.slotBytes), policy: policy, prediction: prediction)
                let runner = try Runner(model, threads: threads, limits: limits)
                #expect(!runner.backend.memoryPlan.isResident)
                let found = try runner.logits(tokens, pieces: pieces, kvType: kvType)
                #expect(found == resident, "\(slots) slots, \(policy), prediction \(prediction)")
                let statistics = runner.backend.expertStatistics
                #expect(statistics.requests > 0 && statistics.reads > 0)
                // The last model has one layer with experts: there is nothing ahead of it.
                if prediction == .on, index < 3 { #expect(statistics.predictions > 0) }
            }
        }
        // All of them, mapped.
        let all = try Runner(model, limits: MemoryLimits(cache: .bytes(table.totalBytes)))
        #expect(all.backend.memoryPlan.isResident)
    }

    @Test func fallbackReadsGiveTheSameBytes() throws {
        let model = try ReferenceFixture.named("sigma-top1").model(.q8_0)
        let table = ExpertRecordTable(model)
        let tokens = SameBytesTests.tokens(60, vocabulary: model.configuration.vocabularySize, seed: 7)
        let expected = try Runner(model).logits(tokens, pieces: [20, 1], kvType: .f16)
        let runner = try Runner(model, limits: MemoryLimits(cache: .bytes(table.recordsPerToken * table.slotBytes))) {
            try DirectFileReader($0.gguf.file, direct: false)
        }
        #expect(try runner.logits(tokens, pieces: [20, 1], kvType: .f16) == expected)
    }

    // MARK: conversations

    static func demoEngine(_ limits: MemoryLimits, context: Int? = nil) throws -> Engine {
        let model = try DemoModel.file()
        return try Engine(
            model: model, backend: try CPUBackend(model: model, threadCount: 2, limits: limits), contextLength: context)
    }

    @Test func theDemoModelAnswersTheSame() async throws {
        let model = try DemoModel.file()
        let table = ExpertRecordTable(model)
        let question = "What is 347 + 586?"
        let expected = try await Answer(DemoModel.session(try DemoModel.engine()), question)
        for slots in [table.recordsPerToken, table.recordsPerToken * 2, table.presentCount / 2, table.presentCount - 1]
        {
            for prediction in [PredictionMode.off, .on] {
                let engine = try Self.demoEngine(
                    MemoryLimits(cache: .bytes(slots * table.slotBytes), prediction: prediction))
                let session = DemoModel.session(engine)
                #expect(try await Answer(session, question) == expected, "\(slots) slots")
            }
        }
    }

    // MARK: the budget

    @Test func tooSmallIsRefusedWithWhatWorks() throws {
        let model = try DemoModel.file()
        let error = #expect(throws: SigmaError.self) {
            _ = try CPUBackend(model: model, threadCount: 2, limits: MemoryLimits(memory: 8 << 20))
        }
        guard error?.kind == .unavailable, case .raise(.memory, let least?) = error?.remedy, least.hasSuffix(" MiB")
        else {
            Issue.record("\(String(describing: error))")
            return
        }
        let size = try #require(Int(least.dropLast(4))) << 20
        // The process grows while tests run beside each other.
        let backend = try CPUBackend(model: model, threadCount: 2, limits: MemoryLimits(memory: size + (256 << 20)))
        #expect(backend.memoryPlan.budget == size + (256 << 20))
        let table = ExpertRecordTable(model)
        let small = #expect(throws: SigmaError.self) {
            _ = try CPUBackend(
                model: model, threadCount: 2,
                limits: MemoryLimits(cache: .bytes((table.recordsPerToken - 1) * table.slotBytes)))
        }
        guard small?.kind == .unavailable, case .raise(.expertCache, _?) = small?.remedy else {
            Issue.record("\(String(describing: small))")
            return
        }
    }

    /// A plan with round numbers.
    static let plan = MemoryPlan(
        budget: 10_000, isResident: false, processBytes: 1000, denseBytes: 2000, expertBytes: 40_000, expertCount: 400,
        slotBytes: 100, recordsPerToken: 8, slotLimit: 400, activationBytes: 500, activationRowBytes: 10,
        kvBlockBytes: 300)

    @Test func plansAddUp() {
        let plan = Self.plan
        #expect(plan.sharedBytes == 7000)
        #expect(plan.slotsAtStart == 62)
        #expect(plan.slots(kv: 6000, activations: 500) == 5 && plan.slots(kv: 9000, activations: 0) == 0)
        #expect(plan.leastBudget == 4600)
        // 19 blocks leave 800 bytes and more.
        #expect(plan.positionLimit(blockBytes: 300) == 19 * 256)
        #expect(abs(plan.expectedHitRate - 0.155) < 1e-9)
    }

    @Test func keysAndValuesTakeThePlaceOfExperts() throws {
        let model = try DemoModel.file()
        let table = ExpertRecordTable(model)
        let block = model.configuration.kvBlockBytes(.f16)
        // Room for half of the experts, and for three blocks with one token's experts.
        let experts = table.recordsPerToken * table.slotBytes
        // The process may grow between the plan and the runner, as tests run beside each other.
        var found: Runner?
        for _ in 0..<50 where found == nil {
            let probe = try CPUBackend(model: model, threadCount: 2).memoryPlan(
                for: MemoryLimits(memory: 1 << 40, cache: .bytes(table.totalBytes / 2)))
            let shared = max(table.totalBytes / 2, 3 * block + experts) + probe.activationBytes
            let limits = MemoryLimits(
                memory: probe.processBytes + probe.denseBytes + shared,
                cache: .bytes(table.totalBytes - table.slotBytes))
            if let runner = try? Runner(model, limits: limits), (runner.backend.positionLimit(kvType: .f16) ?? 0) >= 256
            {
                found = runner
            }
        }
        let runner = try #require(found)
        let backend = runner.backend
        let room = try #require(backend.positionLimit(kvType: .f16))
        let state = try backend.makeSequence(kvType: .f16)
        let batch = Batch()
        var slots: [Int] = []
        var length = 0
        let tokens = SameBytesTests.tokens(room + 300, vocabulary: runner.vocabulary, seed: 1)
        while backend.hasRoom(for: state, positions: length + 1), length < tokens.count {
            #expect(backend.room(for: state, limit: 1, beside: Batch()) == 1)
            batch.removeAll()
            batch.append(tokens[length..<(length + 1)], to: state)
            #expect(try runner.pass.run(batch, isCancelled: { false }) { _ in })
            length += 1
            slots.append(backend.expertCacheBytes / table.slotBytes)
            let plan = backend.memoryPlan
            // The plan counts two pages of activations that a short sequence doesn't fill.
            let activations = plan.activationBytes - 2 * 4096
            #expect(slots.last! * table.slotBytes + state.byteCount + activations <= plan.sharedBytes!)
        }
        #expect(length == room, "\(length)")
        #expect(slots.last! >= table.recordsPerToken)
        #expect(slots.first! > slots.last!)
        // One more is refused, and nothing is lost.
        #expect(backend.room(for: state, limit: 1, beside: Batch()) == 0)
        batch.removeAll()
        batch.append(tokens[length..<(length + 1)], to: state)
        let error = #expect(throws: SigmaError.self) {
            _ = try runner.pass.run(batch, isCancelled: { false }) { _ in }
        }
        #expect(error?.kind == .unavailable && state.length == length)
    }

    @Test func aSequenceEndsWhereMemoryEnds() async throws {
        let model = try DemoModel.file()
        let table = ExpertRecordTable(model)
        let block = model.configuration.kvBlockBytes(.f16)
        // The process may grow or shrink between the plan and the engine, as tests run beside each other.
        var found: Engine?
        for _ in 0..<50 where found == nil {
            let probe = try CPUBackend(model: model, threadCount: 2).memoryPlan(
                for: MemoryLimits(memory: 1 << 40, cache: .bytes(table.totalBytes / 2)))
            let fixed = probe.processBytes + probe.denseBytes + probe.activationBytes
            let budget = fixed + block + block / 2 + table.recordsPerToken * table.slotBytes
            let limits = MemoryLimits(memory: budget, cache: .bytes(table.totalBytes - table.slotBytes))
            if let engine = try? Self.demoEngine(limits), engine.backend.positionLimit(kvType: .f16) == 256 {
                found = engine
            }
        }
        let engine = try #require(found)
        let room = 256
        // The conversation's keys and values go with it.
        func tell() async throws -> Answer {
            let session = DemoModel.session(engine, options: engine.endless(4000, temperature: 1.5))
            return try await Answer(session, "Tell me a long story about the number 7.")
        }
        let answer = try await tell()
        let statistics = try #require(answer.statistics)
        #expect(statistics.reason == .context)
        #expect(statistics.promptTokens + statistics.generatedTokens >= room)
        // What cannot fit is refused before anything is computed.
        let sequence = try SigmaModel(engine: engine, configuration: .init()).makeSequence()
        let error = await #expect(throws: SigmaError.self) {
            try await sequence.append([Int32](repeating: 5, count: room + 44))
        }
        #expect(error?.kind == .unavailable && error?.message.contains("\(room + 44) tokens") == true)
        // Another conversation goes on as before.
        let fresh = try await Answer(DemoModel.session(engine), "What is 1 + 2?")
        #expect(fresh.statistics?.reason == .stop)
    }

    /// Keys and values of a file take their memory from the experts, and before they are there.
    @Test func aRestoredSessionStaysWithinTheBudget() async throws {
        let model = try DemoModel.file()
        let table = ExpertRecordTable(model)
        let block = model.configuration.kvBlockBytes(.f16)
        let path = FileManager.default.temporaryDirectory.path + "/sigma-session-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: path) }
        let session = DemoModel.session(
            try DemoModel.engine(), options: GenerationOptions(temperature: 0, thinkingBudget: 4, maximumTokens: 4))
        _ = try await Answer(session, "Repeat: " + (0..<140).map { "\($0)" }.joined(separator: " "))
        try #require((257...512).contains(session.cachedTokens.count))
        try session.save(to: path)

        // Room for half of the experts, and for three blocks with one token's experts.
        let probe = try CPUBackend(model: model, threadCount: 2).memoryPlan(
            for: MemoryLimits(memory: 1 << 40, cache: .bytes(table.totalBytes / 2)))
        let shared =
            max(table.totalBytes / 2, 3 * block + table.recordsPerToken * table.slotBytes) + probe.activationBytes
        let limits = MemoryLimits(
            memory: probe.processBytes + probe.denseBytes + shared, cache: .bytes(table.totalBytes - table.slotBytes))
        let engine = try Self.demoEngine(limits)
        let backend = try #require(engine.backend as? CPUBackend)
        // Experts have all of it.
        _ = try await Answer(DemoModel.session(engine), "What is 1 + 2?")
        let restored = DemoModel.session(engine)
        try restored.restore(from: path)
        #expect(restored.cachedTokens.count == session.cachedTokens.count)
        let plan = backend.memoryPlan
        let activations = plan.activationBytes - 2 * 4096
        #expect(backend.expertCacheBytes + 2 * block + activations <= plan.sharedBytes!)
        _ = try await Answer(restored, "What is 1 + 2?")
    }

    @Test func aBackEndGivesItsMemoryBack() throws {
        let model = try ReferenceFixture.named("sigma-top1").model(.q8_0)
        let table = ExpertRecordTable(model)
        weak var cache: CPUBackend?
        do {
            let runner = try Runner(
                model, limits: MemoryLimits(cache: .bytes(table.recordsPerToken * table.slotBytes)))
            _ = try runner.logits([1, 2, 3])
            cache = runner.backend
            #expect(cache != nil)
        }
        #expect(cache == nil)
    }

    // MARK: a lost file

    @Test func aTruncatedFileFailsTheRequestAndNothingElse() async throws {
        let path = try FaultTests.temporaryModel()
        defer { try? FileManager.default.removeItem(atPath: path) }
        let table = ExpertRecordTable(try ModelFile(path: path))
        let configuration = SigmaModel.Configuration(
            expertCache: .size(.bytes(table.recordsPerToken * table.slotBytes)))
        let model = try await SigmaModel.load(from: path, configuration: configuration)
        let session = model.makeSession(options: GenerationOptions(temperature: 0, maximumTokens: 5))
        #expect(try await !session.respond(to: "What is 1 + 2?").isEmpty)
        try FaultTests.truncate(path, to: UInt64(table.places[Record(1)]!.offset + 5000))
        for _ in 0..<2 {
            let error = await #expect(throws: SigmaError.self) { try await session.respond(to: "What is 3 + 4?") }
            #expect(error?.kind == .inputOutput && error?.path == path && error?.offset != nil)
        }
    }

    @Test func aRecordOverwrittenInPlaceIsNotComputedWith() async throws {
        let path = try FaultTests.temporaryModel()
        defer { try? FileManager.default.removeItem(atPath: path) }
        let table = ExpertRecordTable(try ModelFile(path: path))
        let configuration = SigmaModel.Configuration(
            expertCache: .size(.bytes(table.recordsPerToken * table.slotBytes)))
        let model = try await SigmaModel.load(from: path, configuration: configuration)
        let options = GenerationOptions(temperature: 0, maximumTokens: 5)
        let first = try await Answer(model.makeSession(options: options), "What is 1 + 2?")
        let file = try #require(fopen(path, "r+"))
        var saved = [UInt8](repeating: 0, count: table.totalBytes)
        let start = table.places.compactMap { $0 }.map(\.offset).min()!
        fseek(file, start, SEEK_SET)
        try #require(fread(&saved, 1, saved.count, file) == saved.count)
        // A bit of every record.
        for place in table.places.compactMap({ $0 }) where place.offset + 64 - start < saved.count {
            fseek(file, place.offset + 64, SEEK_SET)
            var byte = saved[place.offset + 64 - start] ^ 1
            try #require(fwrite(&byte, 1, 1, file) == 1)
        }
        fflush(file)
        let damaged = await #expect(throws: SigmaError.self) {
            try await model.makeSession(options: options).respond(to: "What is 5 + 6?")
        }
        #expect(damaged?.kind == .damaged && damaged?.item?.contains("expert") == true)
        fseek(file, start, SEEK_SET)
        try #require(fwrite(saved, 1, saved.count, file) == saved.count)
        fclose(file)
        // The disk is well again, and so is the model.
        #expect(try await Answer(model.makeSession(options: options), "What is 1 + 2?") == first)
    }

    /// Records are compared with their checksums while they are used: no step counts before all are, though dense layers follow them.
    @Test func damageBeforeADenseLayerIsSeen() async throws {
        let path = FileManager.default.temporaryDirectory.path + "/sigma-fault-\(UUID().uuidString).gguf"
        defer { try? FileManager.default.removeItem(atPath: path) }
        try Converter.convert(
            Converter.Options(
                input: ReferenceFixture.folder + "/qwen3moe-mixed-layers", output: path, type: .q8_0,
                overrides: try Overrides()))
        let table = ExpertRecordTable(try ModelFile(path: path))
        let layer = try #require(table.choices.lastIndex { $0 > 0 })
        try #require(layer < table.layerCount - 1)
        let configuration = SigmaModel.Configuration(
            expertCache: .size(.bytes(table.recordsPerToken * table.slotBytes)))
        let sequence = try await SigmaModel.load(from: path, configuration: configuration).makeSequence()
        _ = try await sequence.append([1, 2, 3])
        let file = try #require(fopen(path, "r+"))
        defer { fclose(file) }
        for place in table.places.map({ $0 })[(layer * table.expertCount)..<((layer + 1) * table.expertCount)] {
            let offset = try #require(place).offset + 64
            var byte = UInt8(0)
            fseek(file, offset, SEEK_SET)
            try #require(fread(&byte, 1, 1, file) == 1)
            byte ^= 1
            fseek(file, offset, SEEK_SET)
            try #require(fwrite(&byte, 1, 1, file) == 1)
        }
        fflush(file)
        let error = await #expect(throws: SigmaError.self) {
            for token in 4..<60 { _ = try await sequence.append([Int32(token)]) }
        }
        #expect(error?.kind == .damaged && error?.item?.contains("expert") == true)
    }

    @Test func aFailingReaderFailsOneStep() async throws {
        let model = try DemoModel.file()
        let table = ExpertRecordTable(model)
        // Without predictions, which would take failures that nobody needs to hear of.
        let limits = MemoryLimits(cache: .bytes(table.recordsPerToken * table.slotBytes), prediction: .off)
        let reader = FailingReader()
        let backend = try CPUBackend(model: model, threadCount: 2, limits: limits) { model in
            try reader.wrap(DirectFileReader(model.gguf.file))
        }
        let engine = try Engine(model: model, backend: backend)
        let expected = try await Answer(DemoModel.session(engine), "What is 12 + 30?")
        for after in [0, 1, 7, 40] {
            reader.failAfter(after)
            let error = await #expect(throws: SigmaError.self) {
                try await Answer(DemoModel.session(engine), "What is 12 + 30?")
            }
            #expect(error?.kind == .inputOutput)
            #expect(try await Answer(DemoModel.session(engine), "What is 12 + 30?") == expected)
        }
    }
}
