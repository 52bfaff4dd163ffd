import SystemLibrary

/// How a layer's router chooses: what is needed beside its logits.
package struct RouterRules: Sendable {
    package var expertCount: Int
    /// Experts that a token uses.
    package var choices: Int
    package var scoring: ModelConfiguration.RouterScoring
    /// [experts]: added to the scores for the choice; empty: none.
    package var selectionBias: [Float]

    package init(
        expertCount: Int, choices: Int, scoring: ModelConfiguration.RouterScoring, selectionBias: [Float] = []
    ) {
        precondition(selectionBias.isEmpty || selectionBias.count == expertCount)
        self.expertCount = expertCount
        self.choices = choices
        self.scoring = scoring
        self.selectionBias = selectionBias
    }
}

/// One layer's routing, summed over tokens: what the paper's equations 1 to 4 need, in O(experts) memory. Sums are in fp64, in the
/// order of the tokens.
package struct LayerLoad: Sendable {
    package let rules: RouterRules
    /// Divides the logits in equation 3.
    package let temperature: Double
    package private(set) var tokens = 0
    /// [experts]: how often each was chosen.
    package private(set) var counts: [Int]
    /// Tokens whose logits were seen.
    package private(set) var weighedTokens = 0
    package private(set) var margins = MarginDistribution()
    /// [experts]: sums of s_i / sum s, and of equation 3's p_ij; and the sum of each token's largest p_ij.
    private var gating: [Double]
    private var softened: [Double]
    private var softenedTop1 = 0.0
    private var scratch: [Double]

    package init(_ rules: RouterRules, temperature: Double) {
        self.rules = rules
        self.temperature = temperature
        counts = Array(repeating: 0, count: rules.expertCount)
        gating = Array(repeating: 0, count: rules.expertCount)
        softened = gating
        scratch = gating
    }

    /// Counts a token's choices [choices].
    package mutating func count(_ chosen: UnsafeBufferPointer<Int32>) {
        tokens += 1
        for expert in chosen { counts[Int(expert)] += 1 }
    }

    /// Adds a token's router logits [experts].
    package mutating func weigh(_ logits: UnsafeBufferPointer<Float>) {
        precondition(logits.count == rules.expertCount)
        weighedTokens += 1
        let total = score(logits)
        for expert in gating.indices { gating[expert] += scratch[expert] / total }
        addMargin()
        soften(logits)
    }

    /// Scores [experts] into `scratch`.
    /// - Returns: their sum.
    private mutating func score(_ logits: UnsafeBufferPointer<Float>) -> Double {
        switch rules.scoring {
        case .sigmoid:
            var total = 0.0
            for expert in scratch.indices {
                scratch[expert] = 1 / (1 + exp(-Double(logits[expert])))
                total += scratch[expert]
            }
            return total
        case .softmax:
            let total = exponentials(logits, temperature: 1)
            for expert in scratch.indices { scratch[expert] /= total }
            return 1
        }
    }

    /// How far the best expert is ahead of the second, by what the choice goes by.
    private mutating func addMargin() {
        guard scratch.count > 1 else { return }
        var best = -Double.infinity
        var second = -Double.infinity
        for expert in scratch.indices {
            let value = scratch[expert] + (rules.selectionBias.isEmpty ? 0 : Double(rules.selectionBias[expert]))
            if value > best {
                second = best
                best = value
            } else if value > second {
                second = value
            }
        }
        margins.add(best - second)
    }

    /// Equation 3 and the numerator of 4.
    private mutating func soften(_ logits: UnsafeBufferPointer<Float>) {
        let total = exponentials(logits, temperature: temperature)
        var most = 0.0
        for expert in softened.indices {
            softened[expert] += scratch[expert] / total
            most = max(most, scratch[expert])
        }
        softenedTop1 += most / total
    }

    /// exp((logits - largest) / temperature) into `scratch`.
    /// - Returns: their sum.
    private mutating func exponentials(_ logits: UnsafeBufferPointer<Float>, temperature: Double) -> Double {
        var most = -Double.infinity
        for logit in logits { most = max(most, Double(logit)) }
        var total = 0.0
        for expert in scratch.indices {
            scratch[expert] = exp((Double(logits[expert]) - most) / temperature)
            total += scratch[expert]
        }
        return total
    }

    // MARK: - The quantities

    /// f: each expert's share of all choices, [experts]; the sum is 1.
    package var allocation: [Double] {
        counts.map { Double($0) / Double(tokens * rules.choices) }
    }

    /// p: mean of s_i / sum s, [experts]; nil if no logits were seen.
    package var gatingProbability: [Double]? {
        weighedTokens > 0 ? gating.map { $0 / Double(weighedTokens) } : nil
    }

    /// Equation 1: experts x sum of f p. 1 where either is uniform.
    package var loadBalancingLoss: Double? {
        gatingProbability.map { p in
            Double(rules.expertCount) * zip(allocation, p).reduce(0) { $0 + $1.0 * $1.1 }
        }
    }

    /// Equation 2, with 3 and 4.
    package var top1LoadBalancingLoss: Double? {
        guard weighedTokens > 0 else { return nil }
        let count = Double(weighedTokens)
        let squares = softened.reduce(0) { $0 + ($1 / count) * ($1 / count) }
        return Double(rules.expertCount) * squares / (softenedTop1 / count)
    }

    /// Entropy of f in nats; at most the logarithm of the number of experts.
    package var entropy: Double { allocation.reduce(0) { $1 > 0 ? $0 - $1 * log($1) : $0 } }
}
