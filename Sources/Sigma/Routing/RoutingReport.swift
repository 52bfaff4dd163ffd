/// How a model's experts were used by the tokens it read: the quantities of the paper's sections 2.2 and 3.6, layer by layer, and
/// what caches of experts would have hit. `docs/load-balance.md` says what each one tells.
public struct RoutingReport: Sendable {
    /// A layer that has a router.
    public struct Layer: Sendable {
        /// In the model, dense layers counted.
        public var index: Int
        /// Experts that a token uses.
        public var expertsPerToken: Int
        /// [experts]: how often each was chosen.
        public var counts: [Int]
        /// f, [experts]: share of all choices; the sum is 1.
        public var allocation: [Double]
        /// p, [experts]: mean of s_i / sum s over the tokens; nil where only choices are known.
        public var gatingProbability: [Double]?
        /// Equation 1.
        public var loadBalancingLoss: Double?
        /// Equation 2, with `RoutingReport.temperature` in equation 3.
        public var top1LoadBalancingLoss: Double?
        /// Of f, in nats.
        public var entropy: Double
        /// How far the best expert's score (with selection bias) is ahead of the second's; nil where only choices are known.
        public var margins: Margins?

        /// (count - mean) / mean of the most and of the least used expert.
        public var deviationOfMost: Double { deviation(counts.max() ?? 0) }
        public var deviationOfLeast: Double { deviation(counts.min() ?? 0) }
        public var unusedExperts: [Int] { counts.indices.filter { counts[$0] == 0 } }

        private func deviation(_ count: Int) -> Double {
            let mean = Double(counts.reduce(0, +)) / Double(counts.count)
            return (Double(count) - mean) / mean
        }
    }

    /// A distribution over tokens. Quantiles are right to 0.6 %.
    public struct Margins: Sendable {
        public var mean: Double
        public var least: Double
        /// Share of the tokens whose margin is 1e-5 or less: rounding may choose another expert.
        public var undecided: Double
        public var quantiles: [(share: Double, value: Double)]
    }

    /// What a cache of experts would have hit: one for all layers, one slot an expert, accesses token by token.
    public struct Cache: Sendable {
        public var accesses: Int
        /// Experts that were used at all: a layer's expert 3 is not another's.
        public var usedExperts: Int
        /// Bytes of a slot.
        public var expertBytes: Int
        /// [experts of all layers]: accesses with this many other experts used since the same one's last use.
        public var reuseDistances: [Int]
        /// [experts of all layers]: share of the accesses that hit in a cache of 1, 2, ... slots that drops what was used longest ago.
        public var leastRecentlyUsed: [Double]
        /// The same for the best that any cache could do (Belady's).
        public var optimal: [Double]

        /// The least distance that a share of `share` of the accesses to experts used before does not exceed; nil if there are none.
        public func reuseDistance(quantile share: Double) -> Int? {
            let total = reuseDistances.reduce(0, +)
            guard total > 0 else { return nil }
            let rank = max(1, Int((share * Double(total)).rounded(.up)))
            var seen = 0
            return reuseDistances.firstIndex {
                seen += $0
                return seen >= rank
            }
        }
    }

    /// Tokens that were routed.
    public var tokens: Int
    /// Experts of a layer.
    public var expertCount: Int
    /// tau in equation 3.
    public var temperature: Double
    public var layers: [Layer]
    public var cache: Cache
}

extension RoutingReport {
    static let marginShares = [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99]

    init(_ statistics: RoutingStatistics, layers indices: [Int]) {
        tokens = statistics.tokens
        expertCount = statistics.model.expertCount
        temperature = statistics.temperature
        layers = zip(indices, statistics.loads).map { Layer($1, index: $0) }
        cache = Cache(
            accesses: statistics.reuse.accesses, usedExperts: statistics.reuse.firstUses,
            expertBytes: statistics.model.expertBytes, reuseDistances: statistics.reuse.counts,
            leastRecentlyUsed: statistics.reuse.hitRates, optimal: statistics.optimal.hitRates)
    }
}

extension RoutingReport.Layer {
    init(_ load: LayerLoad, index: Int) {
        self.index = index
        expertsPerToken = load.rules.choices
        counts = load.counts
        allocation = load.allocation
        gatingProbability = load.gatingProbability
        loadBalancingLoss = load.loadBalancingLoss
        top1LoadBalancingLoss = load.top1LoadBalancingLoss
        entropy = load.entropy
        margins = load.margins.count > 0 ? RoutingReport.Margins(load.margins) : nil
    }
}

extension RoutingReport.Margins {
    init(_ margins: MarginDistribution) {
        mean = margins.mean
        least = margins.least
        undecided = Double(margins.undecidedCount) / Double(margins.count)
        quantiles = RoutingReport.marginShares.map { ($0, margins.quantile($0)) }
    }
}
