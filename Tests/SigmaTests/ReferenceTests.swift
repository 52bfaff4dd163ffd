import Sigma
import Testing

/// The engine in f32 against the PyTorch reference (and, for Qwen3-MoE, against transformers), on random checkpoints of every variant.
@Suite struct ReferenceTests {
    /// Positions whose own and earlier router margins are above rounding: only there a reference can be followed.
    static func comparable(_ margins: [Float]) -> [Bool] {
        var least = Float.infinity
        return margins.map {
            least = min(least, $0)
            return least > 1e-5
        }
    }

    @Test(arguments: ReferenceFixture.all) func logProbabilitiesMatch(fixture: ReferenceFixture) throws {
        let model = try fixture.model(.f32)
        let expected = try fixture.expected()
        let tokens = try expected.ids("tokens")
        let reference = try expected.floats("log_probs")
        let comparable = Self.comparable(try expected.floats("margins"))
        #expect(comparable.filter { !$0 }.count * 50 <= comparable.count)
        for level in KernelTests.levels {
            let runner = try Runner(model, level: level)
            let found = logSoftmax(try runner.logits(tokens), width: runner.vocabulary)
            try #require(found.count == reference.count)
            var worst = 0.0
            for (index, value) in found.enumerated() where comparable[index / runner.vocabulary] {
                worst = max(worst, abs(value - Double(reference[index])))
            }
            // fp32 throughout: the bound to keep is 1e-3, and a tenth of it leaves room for every summation order.
            #expect(worst < 1e-4, "\(level)")
        }
    }

    @Test(arguments: ReferenceFixture.all) func greedyContinuationsAreEqual(fixture: ReferenceFixture) throws {
        let expected = try fixture.expected()
        let greedy = try expected.ids("greedy")
        let margins = try expected.floats("greedy_margins")
        let runner = try Runner(fixture.model(.f32))
        var tokens = try expected.ids("tokens")
        var compared = 0
        for (token, margin) in zip(greedy, margins) {
            let last = try runner.logits(tokens).suffix(runner.vocabulary)
            let best = last.indices.max { last[$0] < last[$1] || (last[$0] == last[$1] && $0 > $1) }!
            guard margin > 1e-4 else { break }
            #expect(Int32(best - last.startIndex) == token)
            tokens.append(token)
            compared += 1
        }
        #expect(compared >= 8)
    }

    /// Every step of every layer, so that a wrong step is named by its own test failure.
    @Test(arguments: ["sigma-top1", "sigma-topk-per-layer", "sigma-shared-experts"])
    func everyStepMatches(name: String) throws {
        let fixture = ReferenceFixture.named(name)
        let model = try fixture.model(.f32)
        let expected = try fixture.expected()
        let tokens = try expected.ids("tokens")
        let runner = try Runner(model)
        let backend = runner.backend
        let c = model.configuration

        func check(_ found: [Float], _ item: String, scale: Float = 1) throws {
            let reference = try expected.floats(item)
            try #require(found.count == reference.count, "\(item): \(found.count) \(reference.count)")
            // Relative to the tensor's own size: sums of tens of terms in fp32.
            let bound = 2e-5 * max(1, reference.map(abs).max() ?? 0)
            for (a, b) in zip(found, reference) where !(abs(a * scale - b) <= bound) {
                Issue.record("\(item): found \(a * scale), reference \(b)")
                return
            }
        }

        let state = try backend.makeSequence(kvType: .f32)
        let batch = Batch()
        batch.append(tokens[...], to: state)
        try backend.begin(batch)
        backend.embed()
        try check(backend.activation(.residual), "embedding")
        for layer in 0..<c.layerCount {
            backend.attend(layer: layer)
            try check(backend.activation(.normed), "layer.\(layer).attention_norm")
            try check(backend.activation(.query), "layer.\(layer).query", scale: Float(c.headDim).squareRoot())
            try check(backend.activation(.attended), "layer.\(layer).attention")
            try check(backend.activation(.residual), "layer.\(layer).attention_residual")
            try backend.feedForward(layer: layer)
            try check(backend.activation(.normed), "layer.\(layer).feed_forward_norm")
            try check(backend.activation(.routerScores), "layer.\(layer).router_scores")
            #expect(backend.activation(.chosen).map { Int32($0) } == (try expected.ids("layer.\(layer).chosen")))
            try check(backend.activation(.weights), "layer.\(layer).weights")
            try check(backend.activation(.feedForward), "layer.\(layer).feed_forward")
            try check(backend.activation(.residual), "layer.\(layer).residual")
        }
        try check(Array(backend.head(rows: 0..<tokens.count)), "logits")
        try backend.end()
    }

    /// 8-bit weights: close to the reference where the routing is the same, and a different rounding of the same model otherwise.
    @Test func quantizedWeightsStayClose() throws {
        let fixture = ReferenceFixture.named("sigma-tied")
        let expected = try fixture.expected()
        let tokens = try expected.ids("tokens")
        let exact = try Runner(fixture.model(.f32))
        let quantized = try Runner(fixture.model(.q8_0))
        let (a, b) = (try exact.logits(tokens), try quantized.logits(tokens))
        let error = zip(a, b).reduce(0.0) { $0 + Double(($1.0 - $1.1) * ($1.0 - $1.1)) }
        let power = a.reduce(0.0) { $0 + Double($1 * $1) }
        #expect(error / power < 1e-2)
        #expect(error > 0)
    }
}
