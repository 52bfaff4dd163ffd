#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Chooses the next token: temperature, then top-k, then top-p, then min-p, then one draw.
///
/// Reproducible: the same logits, options and seed give the same tokens. Candidates are ordered by logit, ties by id.
package struct Sampler: Sendable {
    private let options: GenerationOptions
    private var random: SplitMix64
    private var candidates: [Candidate] = []

    private struct Candidate {
        var id: Int32
        var logit: Float
    }

    package init(options: GenerationOptions, seed: UInt64) {
        self.options = options
        random = SplitMix64(state: seed)
    }

    /// - Parameters:
    ///   - logits: [vocabulary].
    ///   - allowed: which ids may be chosen; empty: all. Others take no part, nor do logits that are not finite.
    /// - Returns: a token id, or nil if no id is allowed or none has a finite logit.
    package mutating func sample(_ logits: UnsafeBufferPointer<Float>, allowed: [Bool]) -> Int32? {
        if options.temperature <= 0 {
            selectLargest(1, of: logits, allowed: allowed)
            return candidates.first?.id
        }
        if options.topK > 0 && options.topK <= 1024 {
            selectLargest(options.topK, of: logits, allowed: allowed)
        } else {
            selectAll(of: logits, allowed: allowed)
            if options.topK > 0 { candidates.removeLast(max(0, candidates.count - options.topK)) }
        }
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

    private func isCandidate(_ id: Int, _ logit: Float, _ allowed: [Bool]) -> Bool {
        logit.isFinite && (allowed.isEmpty || allowed[id])
    }

    /// The `count` largest by insertion into a sorted list: `count` is small, and nearly every logit is below the list's last.
    private mutating func selectLargest(_ count: Int, of logits: UnsafeBufferPointer<Float>, allowed: [Bool]) {
        candidates.removeAll(keepingCapacity: true)
        for (id, logit) in logits.enumerated() {
            if candidates.count == count {
                if !(logit > candidates[count - 1].logit) || !isCandidate(id, logit, allowed) { continue }
                candidates.removeLast()
            } else if !isCandidate(id, logit, allowed) {
                continue
            }
            var place = candidates.count
            while place > 0 && candidates[place - 1].logit < logit { place -= 1 }
            candidates.insert(Candidate(id: Int32(id), logit: logit), at: place)
        }
    }

    private mutating func selectAll(of logits: UnsafeBufferPointer<Float>, allowed: [Bool]) {
        candidates.removeAll(keepingCapacity: true)
        for (id, logit) in logits.enumerated() where isCandidate(id, logit, allowed) {
            candidates.append(Candidate(id: Int32(id), logit: logit))
        }
        candidates.sort { $0.logit > $1.logit || ($0.logit == $1.logit && $0.id < $1.id) }
    }
}

/// A small generator with a fixed definition (Steele, Lea and Flood, 2014), so that seeds mean the same in every version.
package struct SplitMix64: RandomNumberGenerator, Sendable {
    package var state: UInt64
    package init(state: UInt64) { self.state = state }

    package mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    /// Uniform in 0 ..< 1, 53 bits.
    package mutating func nextUnit() -> Double { Double(next() >> 11) * 0x1p-53 }
}
