import Sigma
import SigmaStudies
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Routing as the engine measures it against the PyTorch reference (Models/reference/make_routing_fixtures.py).
@Suite struct RoutingStatisticsTests {
    static let folder = ReferenceFixture.packageRoot + "/Tests/Fixtures/routing"
    static let names: [String] = {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        let found = names.filter { $0.hasSuffix(".json") }.map { String($0.dropLast(5)) }.sorted()
        precondition(found.count >= 6, "the routing fixtures are missing: \(folder)")
        return found
    }()

    final class Collector: RoutingObserver, @unchecked Sendable {
        var statistics: RoutingStatistics
        init(_ model: ModelFile, temperature: Double) throws {
            statistics = try RoutingStatistics(.init(model), temperature: temperature)
        }
        func observe(_ tokens: RoutedTokens) { statistics.add(tokens) }
    }

    /// Routes windows of `context` tokens.
    static func survey(
        _ model: ModelFile, _ tokens: [Int32], context: Int, temperature: Double = 1, threads: Int = 2,
        rowLimit: Int = 512, kvType: KVType = .f32, alsoTo observers: [any RoutingObserver] = []
    ) throws -> RoutingReport {
        let backend = try CPUBackend(model: model, threadCount: threads, rowLimit: rowLimit)
        let engine = try Engine(model: model, backend: backend)
        let collector = try Collector(model, temperature: temperature)
        let survey = try RoutingSurvey(engine: engine, kvType: kvType, observers: [collector] + observers)
        for window in stride(from: 0, to: tokens.count, by: context) {
            try survey.run(
                tokens[window..<min(window + context, tokens.count)], isCancelled: { false }, afterStep: { _ in })
        }
        return collector.statistics.report
    }

    @Test(arguments: names) func theReferenceFindsTheSame(name: String) throws {
        let text = try String(contentsOfFile: Self.folder + "/\(name).json", encoding: .utf8)
        let expected = try JSONValue.parse(text, path: name)
        let model = try ReferenceFixture.named(name).model(.f32)
        let tokens = try #require(expected["input"]?.array).map { Int32($0.integer ?? -1) }
        let report = try Self.survey(
            model, tokens, context: try #require(expected["context"]?.int),
            temperature: try #require(expected["tau"]?.double))

        var compared = 0
        func check(_ found: Double?, _ reference: JSONValue?, _ item: String) throws {
            let (found, reference) = (try #require(found), try #require(reference?.double))
            #expect(abs(found - reference) < 1e-5, "\(name), \(item): \(found), reference \(reference)")
            compared += 1
        }
        func check(_ found: [Double]?, _ reference: JSONValue?, _ item: String) throws {
            let (found, reference) = (try #require(found), try #require(reference?.array))
            try #require(found.count == reference.count)
            for (index, value) in found.enumerated() { try check(value, reference[index], "\(item)[\(index)]") }
        }
        #expect(report.tokens == tokens.count && expected["tokens"]?.int == tokens.count)
        let layers = try #require(expected["layers"]?.array)
        try #require(layers.count == report.layers.count)
        for (layer, reference) in zip(report.layers, layers) {
            #expect(layer.index == reference["layer"]?.int)
            #expect(layer.expertsPerToken == reference["experts_per_token"]?.int)
            #expect(layer.unusedExperts == reference["unused"]?.array?.compactMap { $0.int })
            try check(layer.loadBalancingLoss, reference["lbl"], "LBL")
            try check(layer.top1LoadBalancingLoss, reference["top1_lbl"], "Top-1 LBL")
            try check(layer.deviationOfMost, reference["deviation_max"], "most")
            try check(layer.deviationOfLeast, reference["deviation_min"], "least")
            try check(layer.entropy, reference["entropy"], "entropy")
            try check(layer.allocation, reference["f"], "f")
            try check(layer.gatingProbability, reference["p"], "p")
            let margin = try #require(reference["margin"])
            try check(layer.margins?.mean, margin["mean"], "margin")
            try check(layer.margins?.least, margin["min"], "least margin")
            let median = try #require(layer.margins?.quantiles.first { $0.share == 0.5 }).value
            let expectedMedian = try #require(margin["p50"]?.double)
            #expect((median - expectedMedian).magnitude < 0.012 * expectedMedian)
        }
        let cache = try #require(expected["cache"])
        #expect(report.cache.accesses == cache["accesses"]?.int)
        #expect(report.cache.usedExperts == cache["used_experts"]?.int)
        try check(report.cache.leastRecentlyUsed, cache["lru"], "LRU")
        try check(report.cache.optimal, cache["belady"], "Belady")
        #expect(compared > 16 * layers.count)
    }

    @Test func piecesAndThreadsChangeNothing() throws {
        let model = try ReferenceFixture.named("sigma-topk-per-layer").model(.q8_0)
        let tokens = SameBytesTests.tokens(300, vocabulary: model.configuration.vocabularySize, seed: 4)
        let whole = try Self.survey(model, tokens, context: 120, threads: 1)
        #expect(whole.tokens == 300)
        for (threads, rows) in [(2, 512), (3, 7), (1, 1)] {
            let found = try Self.survey(model, tokens, context: 120, threads: threads, rowLimit: rows)
            #expect(found.layers.map(\.counts) == whole.layers.map(\.counts))
            #expect(found.layers.map(\.gatingProbability) == whole.layers.map(\.gatingProbability))
            #expect(found.layers.map(\.top1LoadBalancingLoss) == whole.layers.map(\.top1LoadBalancingLoss))
            #expect(found.cache.leastRecentlyUsed == whole.cache.leastRecentlyUsed)
            #expect(found.cache.optimal == whole.cache.optimal)
        }
    }

    /// What a step computes is the same bytes whether its routing is asked for or not.
    @Test func askingChangesNothing() throws {
        let model = try ReferenceFixture.named("sigma-dense-layers").model(.q8_0)
        let runner = try Runner(model)
        let tokens = SameBytesTests.tokens(40, vocabulary: model.configuration.vocabularySize, seed: 4)
        let plain = try runner.logits(tokens)
        let record = RoutingRecord(model.configuration)
        let batch = Batch()
        batch.routing = record
        batch.append(tokens[...], to: try runner.backend.makeSequence(kvType: .f32))
        var logits: [Float] = []
        _ = try runner.pass.run(batch, isCancelled: { false }) { backend in
            for row in tokens.indices { logits += backend.head(rows: row..<(row + 1)) }
        }
        #expect(logits == plain)
        // Layer 0 is dense.
        var rows = [0, 0]
        for layer in 0..<2 {
            record.forEachRow(of: 0..<40, layer: layer) { logits, chosen in
                rows[layer] += 1
                #expect(logits.count == 4 && chosen.count == 2 && logits.contains { $0 != 0 })
            }
        }
        #expect(rows == [0, 40])
    }

    @Test func wrongTemperaturesAndModels() throws {
        let model = RoutingStatistics.Model(
            expertCount: 2, layers: [RouterRules(expertCount: 2, choices: 1, scoring: .sigmoid)], expertBytes: 1)
        for temperature in [0, -1, .nan, .infinity] {
            #expect(throws: SigmaError.self) { try RoutingStatistics(model, temperature: temperature) }
        }
        let dense = RoutingStatistics.Model(
            expertCount: 2, layers: [RouterRules(expertCount: 2, choices: 0, scoring: .sigmoid)], expertBytes: 1)
        #expect(throws: SigmaError.self) { try RoutingStatistics(dense) }
    }
}

extension JSONValue {
    fileprivate var int: Int? { integer.map { Int($0) } }
}
