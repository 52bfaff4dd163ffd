import Sigma
import Testing

/// Masks, additions and the largest logits: a choice is the same from the few that were asked for as from all of them.
@Suite struct LogitChoiceTests {
    @Test(arguments: [1, 2, 63, 64, 65, 127, 128, 129, 1000]) func masksAreExactAtEverySize(size: Int) {
        var random = SplitMix64(state: UInt64(size))
        let a = (0..<size).map { _ in random.next() & 1 == 0 }
        let b = (0..<size).map { _ in random.next() % 3 > 0 }
        let masks = [a, b].map { allowed in TokenMask(vocabularySize: size) { allowed[Int($0)] } }
        let both = TokenMask(masks[0], and: masks[1])
        let all = TokenMask(all: size)
        // The writer may leave anything behind the vocabulary.
        let ones = TokenMask(vocabularySize: size) { $0.update(repeating: .max) }
        for id in 0..<size {
            #expect(masks[0].allows(id) == a[id] && masks[1].allows(id) == b[id])
            #expect(both.allows(id) == (a[id] && b[id]))
            #expect(all.allows(id) && ones.allows(id))
        }
        #expect(masks[0].count == a.count { $0 } && both.count == zip(a, b).count { $0 && $1 })
        #expect(all.allowsAll && ones.count == size && all.count == size)
        #expect(both.allowsAll == (both.count == size))
        #expect(TokenMask.wordCount(size) == (size + 63) / 64)
        let last = all.words[TokenMask.wordCount(size) - 1]
        #expect(last.nonzeroBitCount == (size - 1) % 64 + 1, "bits behind the vocabulary")
    }

    /// Few values, so that many are equal; and some that are no numbers.
    private static func logits(_ size: Int, _ random: inout SplitMix64) -> [Float] {
        (0..<size).map { _ in
            switch random.next() % 40 {
            case 0: .nan
            case 1: .infinity
            case 2: -.infinity
            default: Float(Int(random.next() % 24)) / 2 - 6
            }
        }
    }

    private static func sorted(_ logits: [Float], _ isAllowed: (Int) -> Bool) -> [TokenLogit] {
        logits.indices.filter { logits[$0].isFinite && isAllowed($0) }
            .map { TokenLogit(id: Int32($0), logit: logits[$0]) }
            .sorted { $0.logit != $1.logit ? $0.logit > $1.logit : $0.id < $1.id }
    }

    @Test(arguments: 1...20) func theLargestAreTheFirstOfAllInOrder(seed: UInt64) {
        var random = SplitMix64(state: seed)
        var largest = LargestLogits()
        for size in [1, 5, 64, 300] {
            let logits = Self.logits(size, &random)
            let allowed = (0..<size).map { _ in random.next() % 4 > 0 }
            let mask = TokenMask(vocabularySize: size) { allowed[Int($0)] }
            let expected = Self.sorted(logits) { allowed[$0] }
            for count in [0, 1, 3, 20, 400] {
                logits.withUnsafeBufferPointer { largest.select(count, of: $0, mask: mask) }
                #expect(largest.list == Array(expected.prefix(count)))
                var inserted = LargestLogits()
                for id in logits.indices.shuffled(using: &random) where allowed[id] {
                    inserted.insert(TokenLogit(id: Int32(id), logit: logits[id]), limit: count)
                }
                #expect(inserted.list == largest.list)
            }
            logits.withUnsafeBufferPointer { largest.sortAll(of: $0, mask: mask) }
            #expect(largest.list == expected)
        }
    }

    /// Biases and penalties, with whatever cuts: from all logits and from as many of the largest as were asked for, the choice is what
    /// `choice` says.
    @Test(arguments: 1...30) func additionsDecideAlikeHoweverTheLogitsCame(seed: UInt64) throws {
        var random = SplitMix64(state: seed &* 977)
        var fromFew = 0
        for round in 0..<40 {
            let size = [7, 64, 65, 200][round % 4]
            let logits = Self.logits(size, &random)
            let allowed = (0..<size).map { _ in random.next() % 5 > 0 }
            let mask = TokenMask(vocabularySize: size) { allowed[Int($0)] }
            var additions = LogitAdditions()
            let onlyFalls = round % 3 == 0
            for _ in 0..<Int(random.next() % 12) {
                let value = Float(Int(random.next() % 16)) - (onlyFalls ? 16 : 8)
                additions.add(value, to: Int32(random.next() % UInt64(size)))
            }
            let options = GenerationOptions(
                temperature: [0, 0.3, 1, 2][Int(random.next() % 4)], topK: [0, 1, 3, 20][Int(random.next() % 4)],
                topP: [1, 0.9, 0.3][Int(random.next() % 3)], minP: [0, 0.05, 0.5][Int(random.next() % 3)])
            var samplers = (Sampler(options: options, seed: seed), Sampler(options: options, seed: seed))
            var reference = SplitMix64(state: seed)
            let wish = samplers.0.wish(additions, mask: mask, showsAll: false)
            for _ in 0..<4 {
                let expected = Self.choice(logits, allowed, additions, options, &reference)
                let all = logits.withUnsafeBufferPointer {
                    samplers.0.sample(.all($0), mask: mask, additions: additions)
                }
                samplers.0.advance(by: 1)
                #expect(all == expected)
                guard case .largest(let count) = wish else { continue }
                fromFew += 1
                let few = Array(Self.sorted(logits) { allowed[$0] }.prefix(count))
                let chosen = few.withUnsafeBufferPointer {
                    samplers.1.sample(.largest($0), mask: mask, additions: additions)
                }
                samplers.1.advance(by: 1)
                #expect(chosen == expected, "\(count) of \(size), \(options), \(additions)")
            }
        }
        #expect(fromFew > 20)
    }

    /// Mask, additions, temperature, top-k, top-p, min-p, a draw: as plainly as it can be written.
    private static func choice(
        _ logits: [Float], _ allowed: [Bool], _ additions: LogitAdditions, _ options: GenerationOptions,
        _ random: inout SplitMix64
    ) -> Int32? {
        var list = sorted(logits) { allowed[$0] }
        for index in list.indices { list[index].logit += additions.values[list[index].id] ?? 0 }
        list.sort { $0.logit != $1.logit ? $0.logit > $1.logit : $0.id < $1.id }
        guard let first = list.first else { return nil }
        if options.temperature == 0 { return first.id }
        if options.topK > 0 { list = Array(list.prefix(options.topK)) }
        let weights = list.map { exponential(Double($0.logit - first.logit) / options.temperature) }
        var kept = list.count
        if options.topP < 1 {
            let total = weights.reduce(0, +)
            kept =
                list.indices.first { index in
                    index > 0 && !(weights[..<index].reduce(0, +) < options.topP * total)
                } ?? list.count
        }
        if options.minP > 0 { kept = weights[..<kept].lastIndex { $0 >= options.minP }.map { $0 + 1 } ?? 1 }
        var rest = random.nextUnit() * weights[..<kept].reduce(0, +)
        for index in 0..<kept {
            rest -= weights[index]
            if rest < 0 { return list[index].id }
        }
        return list[kept - 1].id
    }

    @Test func wishesAskForWhatAChoiceNeeds() {
        let all = TokenMask(all: 5000)
        func wish(
            _ options: GenerationOptions, _ values: [Int32: Float], mask: TokenMask = all, showsAll: Bool = false
        ) -> LogitRequest.Wish {
            var additions = LogitAdditions()
            for (id, value) in values { additions.add(value, to: id) }
            return Sampler(options: options, seed: 1).wish(additions, mask: mask, showsAll: showsAll)
        }
        let greedy = GenerationOptions(temperature: 0)
        let drawn = GenerationOptions(temperature: 1, topK: 20)
        #expect(wish(greedy, [:]) == .largest(1) && wish(drawn, [:]) == .largest(20))
        // What falls can make room for as many; what rises may come from anywhere.
        #expect(wish(drawn, [3: -1, 9: -2]) == .largest(22))
        #expect(wish(drawn, [3: -1, 9: 2]) == .all)
        #expect(wish(GenerationOptions(temperature: 1, topK: 0), [:]) == .all)
        // Both ways are compared only where they look for the same.
        #expect(wish(drawn, [:], showsAll: true) == .all(comparing: 20))
        #expect(wish(drawn, [3: -1], showsAll: true) == .all)
        // All of a few are asked for by number, so that no others are computed.
        let few = TokenMask(vocabularySize: 5000) { $0 % 100 == 7 }
        let everything = GenerationOptions(temperature: 1, topK: 0)
        #expect(wish(everything, [:], mask: few) == .largest(50) && wish(drawn, [3: 2], mask: few) == .largest(50))
        #expect(wish(drawn, [:], mask: few) == .largest(20) && wish(everything, [:], mask: few, showsAll: true) == .all)
    }

    @Test func whatIsAddedMustBeANumberAsLogitsAre() throws {
        try GenerationOptions(logitBias: [1: -1e30], frequencyPenalty: 1e30).check()
        for value in [Double.nan, .infinity, -.infinity, 1e39, -1e39] {
            #expect(throws: SigmaError.self) { try GenerationOptions(logitBias: [1: value]).check() }
            #expect(throws: SigmaError.self) { try GenerationOptions(frequencyPenalty: value).check() }
            #expect(throws: SigmaError.self) { try GenerationOptions(presencePenalty: value).check() }
        }
    }
}
