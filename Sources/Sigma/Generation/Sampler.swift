import SystemLibrary

/// Chooses the next token: temperature, then top-k, then top-p, then min-p, then one draw.
///
/// Reproducible: the same logits, options and seed give the same tokens. Candidates are ordered by logit, ties by id.
package struct Sampler: Sendable {
    private let options: GenerationOptions
    private var random: SplitMix64
    private var candidates = LargestLogits()

    package init(options: GenerationOptions, seed: UInt64) {
        self.options = options
        random = SplitMix64(state: seed)
    }

    /// How many of the largest logits decide; nil: all may matter.
    package var logitCount: Int? {
        if options.temperature <= 0 { return 1 }
        return (1...Self.largestSelection).contains(options.topK) ? options.topK : nil
    }
    private static let largestSelection = 1024

    /// - Parameters:
    ///   - logits: [vocabulary].
    ///   - allowed: which ids may be chosen; empty: all. Others take no part, nor do logits that are not finite.
    /// - Returns: a token id, or nil if no id is allowed or none has a finite logit.
    package mutating func sample(_ logits: UnsafeBufferPointer<Float>, allowed: [Bool]) -> Int32? {
        if let logitCount {
            candidates.select(logitCount, of: logits, allowed: allowed)
        } else {
            candidates.sortAll(of: logits, allowed: allowed)
        }
        return choose()
    }

    /// The same from the largest logits alone: `logitCount` of them, or as many as there are, in the order of `LargestLogits`.
    package mutating func sample(largest: UnsafeBufferPointer<TokenLogit>) -> Int32? {
        candidates.copy(largest)
        return choose()
    }

    private mutating func choose() -> Int32? {
        if options.temperature <= 0 { return candidates.list.first?.id }
        var candidates = candidates.list[...]
        if options.topK > 0 { candidates = candidates.prefix(options.topK) }
        guard let largest = candidates.first?.logit else { return nil }

        // Unnormalised probabilities after temperature, in fp64.
        func mass(_ logit: Float) -> Double { exp(Double(logit - largest) / options.temperature) }
        var total = candidates.reduce(0) { $0 + mass($1.logit) }
        if options.topP < 1 {
            // A token stays while the mass before it is below top-p: the first always does.
            var before = 0.0
            var kept = 0
            for candidate in candidates where kept == 0 || before < options.topP * total {
                before += mass(candidate.logit)
                kept += 1
            }
            candidates.removeLast(candidates.count - kept)
            total = before
        }
        if options.minP > 0 {
            while candidates.count > 1, let last = candidates.last, mass(last.logit) < options.minP {
                candidates.removeLast()
            }
            total = candidates.reduce(0) { $0 + mass($1.logit) }
        }
        var remaining = random.nextUnit() * total
        for candidate in candidates {
            remaining -= mass(candidate.logit)
            if remaining < 0 { return candidate.id }
        }
        return candidates.last?.id
    }
}
