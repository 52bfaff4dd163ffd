import Sigma
import Testing

extension BackendTests {
    /// The same bits, whatever is beside a row, however a prompt is cut, wherever experts are, and again.
    @Suite struct SameBits {
        static let cases: [(String, WeightType, KVType)] = [
            ("sigma-top1", .q8_0, .f16), ("sigma-topk-per-layer", .q4_0, .f32), ("sigma-shared-experts", .q8_0, .f16),
            ("sigma-head-dim-96", .q8_0, .q8_0), ("qwen3moe-mixed-layers", .q8_0, .f16), ("sigma-tied", .f32, .f32),
        ]

        @Test(arguments: 0..<cases.count) func anyCutAndAnyCompany(index: Int) throws {
            let (name, type, kvType) = Self.cases[index]
            let model = try Models.fixture(name, type)
            let runner = Runner(try Device.get().backend(model), model)
            // Some beyond a split of attention, with a ragged end.
            let count = index % 3 == 0 ? 270 : 60
            let tokens = randomTokens(count, model)
            let whole = try runner.logits(tokens, pieces: [count], kvType: kvType)
            #expect(try runner.logits(tokens, pieces: [count], kvType: kvType) == whole)
            #expect(try runner.logits(tokens, pieces: [count - 16, 1, 1, 1, 9, 4], kvType: kvType) == whole)
            let short = Array(tokens.prefix(24))
            let part = Array(whole.prefix(24 * model.configuration.vocabularySize))
            #expect(try runner.logits(short, pieces: [1], kvType: kvType) == part)
            // Beside others, in steps of few rows and of many.
            let others = [randomTokens(9, model, seed: 1), short, randomTokens(31, model, seed: 2)]
            for pieces in [[1], [2, 9]] {
                let found = try runner.logits(others, pieces: pieces, kvTypes: [kvType])
                #expect(found[1] == part, "\(pieces)")
            }
        }

        @Test func cachesOfSeveralTypesInOneStep() throws {
            let model = try Models.demo()
            let runner = Runner(try Device.get().backend(model), model)
            let tokens = [randomTokens(20, model, seed: 1), randomTokens(17, model, seed: 2), randomTokens(20, model)]
            let types: [KVType] = [.f16, .q8_0, .f32]
            let together = try runner.logits(tokens, pieces: [2, 11], kvTypes: types)
            for (index, kvType) in types.enumerated() {
                #expect(try runner.logits(tokens[index], kvType: kvType) == together[index], "\(kvType)")
            }
        }

        /// Experts on the device, in few slots, in many: the same bits, with graphs, through the bus, and in steps that stage whole layers.
        @Test func anyBudgetOfExperts() throws {
            let model = try Models.demo()
            let tokens = randomTokens(80, model)
            let all = Runner(try Device.get().backend(model), model)
            let expected = try all.logits(tokens, pieces: [80], kvType: .f16)
            let short = Array(tokens.prefix(20))
            let part = Array(expected.prefix(20 * model.configuration.vocabularySize))
            let slot = ExpertRecordTable(model).slotBytes
            for slots in [4, 31] {
                let backend = try Device.get().backend(
                    model, limits: MemoryLimits(cache: .bytes(slots * slot), policy: slots == 4 ? .lfu : .lru))
                #expect(!backend.memoryPlan.isResident && backend.report.expertCacheBytes == slots * slot)
                let runner = Runner(backend, model)
                #expect(try runner.logits(tokens, pieces: [80], kvType: .f16) == expected)
                #expect(try runner.logits(short, pieces: [1], kvType: .f16) == part)
                #expect(try runner.logits(tokens, pieces: [70, 3, 1], kvType: .f16) == expected)
                let statistics = backend.expertStatistics
                #expect(statistics.requests > 0 && statistics.bytesRead > 0)
                // Random tokens use all experts: a slot more is a hit more, and not all can be hits.
                #expect(statistics.hits > 0 && statistics.hits < statistics.requests)
            }
        }

        @Test func smallStepsAreGraphs() throws {
            let model = try Models.demo()
            let device = try Device.get()
            let runner = Runner(try device.backend(model), model)
            let before = device.graphLaunches
            _ = try runner.logits(randomTokens(20, model), pieces: [1], kvType: .f16)
            #expect(device.graphLaunches - before == 20)
            // Who wants to see the routing gets it layer by layer.
            _ = try runner.logits(
                randomTokens(5, model), pieces: [1], kvType: .f16, routing: RoutingRecord(model.configuration))
            #expect(device.graphLaunches - before == 20)
        }
    }
}
