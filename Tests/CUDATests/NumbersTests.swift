import Sigma
import SigmaConversion
import SigmaStudies
import Testing

extension BackendTests {
    /// What the back end computes, against the PyTorch reference and the CPU back end.
    @Suite struct Numbers {
        /// Positions whose own and earlier router margins are above rounding: only there a reference can be followed.
        private static func comparable(_ margins: [Float]) -> [Bool] {
            var least = Float.infinity
            return margins.map {
                least = min(least, $0)
                return least > 1e-5
            }
        }

        @Test(arguments: Models.fixtureNames) func logProbabilitiesAreTheReferences(name: String) throws {
            let model = try Models.fixture(name, .f32)
            let expected = try Models.expected(name)
            let tokens = try expected.values("tokens", as: Int32.self)
            let reference = try expected.values("log_probs", as: Float.self)
            let comparable = Self.comparable(try expected.values("margins", as: Float.self))
            let runner = Runner(try Device.get().backend(model), model)
            let width = model.configuration.vocabularySize
            // All at once, and with the kernels for few rows.
            for pieces in [[tokens.count], [1]] {
                let found = logSoftmax(try runner.logits(tokens, pieces: pieces), width: width)
                try #require(found.count == reference.count)
                var worst = 0.0
                for (index, value) in found.enumerated() where comparable[index / width] {
                    worst = max(worst, abs(value - Double(reference[index])))
                }
                // fp32 throughout, as on the CPU.
                #expect(worst < 1e-4, "\(pieces)")
            }
        }

        @Test(arguments: ["sigma-top1", "sigma-topk-per-layer", "qwen3moe-mixed-layers"])
        func greedyContinuationsAreTheReferences(name: String) throws {
            let model = try Models.fixture(name, .f32)
            let expected = try Models.expected(name)
            let greedy = try expected.values("greedy", as: Int32.self)
            let margins = try expected.values("greedy_margins", as: Float.self)
            let backend = try Device.get().backend(model)
            let pass = ForwardPass(layerCount: model.configuration.layerCount, backend: backend)
            let sequence = try backend.makeSequence(kvType: .f32)
            let batch = Batch()
            let all = TokenMask(all: model.configuration.vocabularySize)
            var next = try expected.values("tokens", as: Int32.self)
            var compared = 0
            for (token, margin) in zip(greedy, margins) {
                guard margin > 1e-4 else { break }
                batch.removeAll()
                batch.append(next[...], to: sequence)
                var best: TokenLogit?
                _ = try pass.run(batch, isCancelled: { false }) { backend in
                    let request = LogitRequest(row: next.count - 1, wish: .largest(1), mask: all)
                    backend.readLogits([request]) { if case .largest(let list) = $1 { best = list.first } }
                }
                #expect(best?.id == token)
                next = [token]
                compared += 1
            }
            #expect(compared >= 8)
        }

        /// A text read by a back end: logits [tokens, vocabulary], and the experts of each token in all layers.
        private struct Reading {
            let logits: [Float]
            let experts: [[Int]]
            let width: Int

            init(_ tokens: [Int32], _ backend: any Backend, _ model: ModelFile, kvType: KVType) throws {
                let routing = RoutingRecord(model.configuration)
                logits = try Runner(backend, model).logits(
                    tokens, pieces: [tokens.count], kvType: kvType, routing: routing)
                width = model.configuration.vocabularySize
                experts = tokens.indices.map { row in
                    (0..<routing.layerCount).flatMap { layer in
                        (0..<routing.choices(layer: layer)).map { routing.chosen(row: row, layer: layer, choice: $0) }
                    }
                }
            }

            private func row(_ index: Int, _ body: (UnsafeBufferPointer<Float>) -> Void) {
                logits.withUnsafeBufferPointer { body($0.row(index, of: experts.count)) }
            }

            /// Adds KL(self || other) of the positions whose tokens, and all before them, went through the same experts in both: where two experts'
            /// scores are nearly equal, rounding decides between two different models.
            func addDivergence(of other: Reading, to divergence: inout Divergence) {
                for index in experts.indices {
                    guard experts[index] == other.experts[index] else { break }
                    row(index) { own in other.row(index) { divergence.add(reference: own, model: $0, next: 0) } }
                }
            }
        }

        @Test(arguments: KVType.allCases) func distributionsAreTheCPUs(kvType: KVType) throws {
            let model = try Models.demo()
            let engine = try Engine(model: model, backend: CPUBackend(model: model, threadCount: 1))
            let backend = try Device.get().backend(model)
            var divergence = Divergence()
            var rounding = Divergence()
            // The first near tie ends a text's comparison: one more instruction set, or type of keys and values, moves it.
            for text in [
                "What is 347 + 586? 7+6=13 carry 1: 3 4+8+1=13 carry 1: 33 3+5+1=9: 933. How many days has a week?",
                "What is 12 + 9? 2+9=11 carry 1: 1 1+1=2: 21.", "Which day comes after Monday? Tuesday.",
                "What is 205 + 94? 5+4=9: 9 0+9=9: 99 2: 299.",
            ] {
                let tokens = try #require(engine.tokenizer).encode(text, recognizingSpecials: false)
                let expected = try Reading(tokens, engine.backend, model, kvType: kvType)
                expected.addDivergence(of: try Reading(tokens, backend, model, kvType: kvType), to: &divergence)
                guard kvType == .q8_0 else { continue }
                let exact = try Reading(tokens, engine.backend, model, kvType: .f32)
                exact.addDivergence(of: expected, to: &rounding)
            }
            #expect(divergence.positions >= 12)
            // Last bits before the cache decide how 8 bits are rounded: both are as far from the exact one, and that far from each other.
            let bound = kvType == .q8_0 ? max(1e-3, 2 * rounding.mean) : 1e-3
            #expect(divergence.mean < bound)
            #expect(divergence.mean > 0, "two orders of summation give the same bits: is it the same back end?")
        }

        @Test func greedyAnswersAreTheCPUs() async throws {
            let model = try Models.demo()
            let device = try Device.get().engine(model)
            let processor = try Engine(model: model, backend: CPUBackend(model: model, threadCount: 1))
            func answers(_ engine: Engine) async throws -> [[String]] {
                [
                    try await answer(session(engine, thinks: true, maximumTokens: 20), "What is 347 + 586?"),
                    try await answer(session(engine), "What is 12 + 9?"),
                ]
            }
            #expect(try await answers(device) == answers(processor))
        }

        @Test(arguments: ["sigma-top1", "sigma-topk-per-layer", "sigma-shared-experts"])
        func routingIsTheCPUs(name: String) throws {
            let model = try Models.fixture(name, .f32)
            let expected = try Models.expected(name)
            let tokens = try expected.values("tokens", as: Int32.self)
            for pieces in [[tokens.count], [3]] {
                let (found, reference) = (RoutingRecord(model.configuration), RoutingRecord(model.configuration))
                let first = Array(tokens.prefix(pieces[0]))
                _ = try Runner(Device.get().backend(model), model).logits(first, pieces: pieces, routing: found)
                _ = try Runner(CPUBackend(model: model, threadCount: 1), model).logits(
                    first, pieces: pieces, routing: reference)
                for layer in 0..<model.configuration.layerCount {
                    var rows: [([Float], [Int32])] = []
                    reference.forEachRow(of: 0..<first.count, layer: layer) { rows.append((Array($0), Array($1))) }
                    var row = 0
                    found.forEachRow(of: 0..<first.count, layer: layer) { logits, chosen in
                        #expect(Array(chosen) == rows[row].1)
                        for (a, b) in zip(logits, rows[row].0) { #expect(abs(a - b) < 1e-4 * max(1, abs(b))) }
                        row += 1
                    }
                    #expect(row == rows.count)
                }
            }
        }

        @Test(arguments: [1, 20, 300]) func theLargestLogitsAreThoseOfTheHead(count: Int) throws {
            let model = try Models.demo()
            let backend = try Device.get().backend(model)
            let pass = ForwardPass(layerCount: model.configuration.layerCount, backend: backend)
            let width = model.configuration.vocabularySize
            // More rows than the head takes at once; all ids are allowed, or some are not.
            let tokens = randomTokens(70, model)
            for mask in [TokenMask(all: width), TokenMask(vocabularySize: width, where: { $0 % 3 != 1 })] {
                let sequence = try backend.makeSequence(kvType: .f16)
                let batch = Batch()
                batch.append(tokens[...], to: sequence)
                var rows = 0
                _ = try pass.run(batch, isCancelled: { false }) { backend in
                    var expected: [[TokenLogit]] = []
                    backend.forEachRow(of: 0..<tokens.count) { _, logits in
                        var largest = LargestLogits()
                        largest.select(count, of: logits, mask: mask)
                        expected.append(largest.list)
                    }
                    let requests = tokens.indices.map { LogitRequest(row: $0, wish: .largest(count), mask: mask) }
                    backend.readLogits(requests) { index, logits in
                        guard case .largest(let largest) = logits else {
                            Issue.record("row \(index) has all its logits")
                            return
                        }
                        #expect(Array(largest) == expected[index])
                        rows += 1
                    }
                }
                #expect(rows == tokens.count)
            }
        }
    }
}
