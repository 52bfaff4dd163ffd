import Sigma
import Testing

@Suite struct SamplerTests {
    static func sample(
        _ logits: [Float], _ options: GenerationOptions, seed: UInt64 = 1, mask: TokenMask? = nil, draws: Int = 1
    ) -> [Int32?] {
        var sampler = Sampler(options: options, seed: seed)
        let mask = mask ?? TokenMask(all: logits.count)
        return (0..<draws).map { _ in
            defer { sampler.advance(by: 1) }
            return logits.withUnsafeBufferPointer { sampler.sample(.all($0), mask: mask, additions: LogitAdditions()) }
        }
    }

    static func greedy(_ logits: [Float], mask: TokenMask? = nil) -> Int32? {
        sample(logits, GenerationOptions(temperature: 0), mask: mask)[0]
    }

    /// Shares of each id over many draws.
    static func shares(_ logits: [Float], _ options: GenerationOptions, draws: Int = 200_000) -> [Double] {
        var counts = [Double](repeating: 0, count: logits.count)
        for id in sample(logits, options, draws: draws) { counts[Int(id!)] += 1 }
        return counts.map { $0 / Double(draws) }
    }

    @Test func greedyTakesTheLargestAndTheLowestAmongEquals() {
        #expect(Self.greedy([1, 3, 2]) == 1)
        #expect(Self.greedy([3, 1, 3, 3]) == 0)
        #expect(Self.greedy([1, 3, 2], mask: TokenMask([true, false, true])) == 2)
        #expect(Self.greedy([.nan, -5, .nan]) == 1)
        #expect(Self.greedy([.nan, -.infinity]) == nil)
        #expect(Self.greedy([1, 2], mask: TokenMask([false, false])) == nil)
    }

    @Test func drawsFollowTheDistribution() {
        let logits: [Float] = [0, 1, 2, -1]
        let temperature = 0.7
        let options = GenerationOptions(temperature: temperature, topK: 0, topP: 1)
        let weights = logits.map { exponential(Double($0) / temperature) }
        let total = weights.reduce(0, +)
        for (share, weight) in zip(Self.shares(logits, options), weights) {
            let p = weight / total
            // Five standard deviations of a binomial share.
            #expect(abs(share - p) < 5 * (p * (1 - p) / 200_000).squareRoot())
        }
    }

    @Test func cutsKeepWhatTheyShould() {
        // Probabilities 0.5, 0.25, 0.15, 0.1 at temperature 1.
        let logits = [0.15, 0.5, 0.1, 0.25].map { Float(logarithm($0)) }
        func kept(_ options: GenerationOptions) -> Set<Int> {
            Set(Self.shares(logits, options, draws: 5000).enumerated().filter { $0.element > 0 }.map(\.offset))
        }
        #expect(kept(GenerationOptions(temperature: 1, topK: 2, topP: 1)) == [1, 3])
        #expect(kept(GenerationOptions(temperature: 1, topK: 0, topP: 0.45)) == [1])
        #expect(kept(GenerationOptions(temperature: 1, topK: 0, topP: 0.7)) == [1, 3])
        #expect(kept(GenerationOptions(temperature: 1, topK: 0, topP: 0.8)) == [1, 3, 0])
        #expect(kept(GenerationOptions(temperature: 1, topK: 0, topP: 1, minP: 0.29)) == [1, 3, 0])
        #expect(kept(GenerationOptions(temperature: 1, topK: 0, topP: 1, minP: 0.4)) == [1, 3])
        #expect(kept(GenerationOptions(temperature: 1, topK: 0, topP: 1e-9)) == [1])
        // Top-p counts what top-k has left: 2/3 and 1/3.
        #expect(kept(GenerationOptions(temperature: 1, topK: 2, topP: 0.66)) == [1])
        // The temperature comes first: at 0.1 the likeliest has nearly everything.
        #expect(kept(GenerationOptions(temperature: 0.1, topK: 0, topP: 0.95)) == [1])
    }

    @Test func selectionIsTheSameForSmallAndLargeK() {
        let logits = KernelTests.values(3000, seed: 4, scale: 4)
        for k in [1, 7, 1024] {
            let a = Self.sample(logits, GenerationOptions(temperature: 1, topK: k, topP: 0.9), draws: 50)
            var padded = logits
            padded.append(-.infinity)
            let b = Self.sample(padded, GenerationOptions(temperature: 1, topK: k, topP: 0.9), draws: 50)
            #expect(a == b)
        }
        // Above the insertion's limit all candidates are sorted: the same draws as long as the cut is the same.
        let sorted = logits.sorted(by: >)
        #expect(
            Self.sample(sorted, GenerationOptions(temperature: 1, topK: 1024, topP: 1), draws: 100)
                == Self.sample(
                    Array(sorted[..<1024]), GenerationOptions(temperature: 1, topK: 2000, topP: 1), draws: 100))
    }

    @Test func seedsDecide() {
        let logits = [Float](repeating: 0, count: 50)
        let options = GenerationOptions(temperature: 1, topK: 0, topP: 1)
        #expect(Self.sample(logits, options, seed: 5, draws: 40) == Self.sample(logits, options, seed: 5, draws: 40))
        #expect(Self.sample(logits, options, seed: 5, draws: 40) != Self.sample(logits, options, seed: 6, draws: 40))
        // The generator is part of the promise: the published first outputs for state 1234567.
        var random = SplitMix64(state: 1_234_567)
        #expect(random.next() == 6_457_827_717_110_365_317 && random.next() == 3_203_168_211_198_807_973)
    }

    @Test func logProbabilitiesSumToOneAndAreOrdered() {
        let logits = KernelTests.values(500, seed: 2, scale: 10) + [.nan, -.infinity]
        logits.withUnsafeBufferPointer { buffer in
            let distribution = LogProbabilities(buffer)
            let all = distribution.top(502)
            #expect(all.count == 502 && Set(all.map(\.id)).count == 502 && all.last?.id == 500)
            let total = all.dropLast().reduce(0) { $0 + exponential($1.logProbability) }
            #expect(abs(total - 1) < 1e-12)
            #expect(zip(all, all.dropFirst().dropLast()).allSatisfy { $0.logProbability >= $1.logProbability })
            #expect(distribution.top(5) == Array(all[..<5]) && distribution.top(0).isEmpty)
        }
    }
}
