import SystemLibrary

/// Chooses the next token: temperature, then top-k, then top-p, then min-p, then one draw.
///
/// Reproducible: the same logits, options and seed give the same tokens. Candidates are ordered by logit, ties by id. Every choice that counts has its own
/// random number, whether it needs one or not, and whatever was tried for it before.
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
    /// Allowed tokens whose logits are all kept in order: every number of three digits is among them.
    private static let fewTokens = 2048

    /// What a choice needs of a row's logits, with what is added to them.
    ///
    /// - Parameters:
    ///   - mask: which ids may be chosen.
    ///   - showsAll: all are wanted for something else.
    package func wish(_ additions: LogitAdditions, mask: TokenMask, showsAll: Bool) -> LogitRequest.Wish {
        if !showsAll, mask.count <= Self.fewTokens, logitCount == nil || !additions.isEmpty {
            // So few that all of them are asked for, whatever is added.
            return .largest(mask.count)
        }
        guard let logitCount else { return .all }
        if showsAll { return .all(comparing: additions.isEmpty ? logitCount : nil) }
        guard !additions.isEmpty else { return .largest(logitCount) }
        return additions.wish(forLargest: logitCount) ?? .all
    }

    /// Chooses from what `wish` asked for.
    ///
    /// - Parameters:
    ///   - mask: which ids may be chosen. Others take no part, nor do logits that are not finite.
    ///   - additions: what is added before temperature and cuts.
    ///   - ahead: choices that come before this one, since the last that counted.
    /// - Returns: a token id, or nil if no id is allowed or none has a finite logit.
    package mutating func sample(
        _ logits: RowLogits, mask: TokenMask, additions: LogitAdditions, ahead: Int = 0
    ) -> Int32? {
        switch logits {
        case .largest(let sorted): candidates.copy(sorted)
        case .all(let logits):
            if let count = logitCount {
                // What falls leaves its place to at most as many others; what rises is there in any case.
                candidates.select(count + additions.values.count, of: logits, mask: mask)
                candidates.append(additions.values.keys, of: logits, mask: mask)
            } else {
                candidates.sortAll(of: logits, mask: mask)
            }
        }
        if !additions.isEmpty { candidates.add(additions) }
        return choose(ahead)
    }

    /// So many choices count: those after them have other random numbers.
    package mutating func advance(by count: Int) {
        for _ in 0..<count { _ = random.next() }
    }

    private func choose(_ ahead: Int) -> Int32? {
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
        var random = random
        for _ in 0..<ahead { _ = random.next() }
        var remaining = random.nextUnit() * total
        for candidate in candidates {
            remaining -= mass(candidate.logit)
            if remaining < 0 { return candidate.id }
        }
        return candidates.last?.id
    }
}
