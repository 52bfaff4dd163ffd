import Sigma

/// How strongly a model's matrices are excited: the mean square of every number that is multiplied with weights, over some text.
///
/// An error in column j of W costs (W'x - Wx)^2 ~ x_j^2, so quantizers weigh it with the mean of x_j^2. Inputs that share their
/// activations (q, k and v; gate and up) share an entry. Experts have entries of their own, over the tokens that they served.
package struct ImportanceMatrix: Sendable, Equatable {
    /// The inputs of one matrix, or of one matrix of every expert in a layer.
    package struct Entry: Sendable, Equatable {
        package let name: String
        /// Numbers that enter, and matrices that have means of their own.
        package let width: Int
        package let groups: Int
        /// [groups, width]; zeros for an expert without tokens.
        package var means: [Float]
        /// [groups]: tokens that went into the means.
        package var counts: [UInt32]
    }

    package let modelName: String
    /// Tokens that were read.
    package let tokenCount: Int
    package let entries: [Entry]
    private let places: [String: Int]

    package init(modelName: String, tokenCount: Int, entries: [Entry]) {
        self.modelName = modelName
        self.tokenCount = tokenCount
        self.entries = entries
        places = Dictionary(uniqueKeysWithValues: entries.enumerated().map { ($0.element.name, $0.offset) })
    }

    // MARK: - Names

    package static let headInput = "output_input"
    package static func attentionInput(_ layer: Int) -> String { "blk.\(layer).attn_input" }
    package static func attentionOutputInput(_ layer: Int) -> String { "blk.\(layer).attn_output_input" }
    /// Of all tokens: for the dense MLP, shared experts, and experts that have seen too few.
    package static func feedForwardInput(_ layer: Int) -> String { "blk.\(layer).ffn_input" }
    package static func expertInput(_ layer: Int) -> String { "blk.\(layer).ffn_experts_input" }
    package static func expertDownInput(_ layer: Int) -> String { "blk.\(layer).ffn_experts_down_input" }
    /// Of the dense MLP, or of the shared experts.
    package static func alwaysOnDownInput(_ layer: Int) -> String { "blk.\(layer).ffn_down_input" }

    /// The entries that a matrix of this model has, all zero.
    package static func blank(_ c: ModelConfiguration) -> [Entry] {
        func entry(_ name: String, _ width: Int, groups: Int = 1) -> Entry {
            Entry(
                name: name, width: width, groups: groups, means: Array(repeating: 0, count: groups * width),
                counts: Array(repeating: 0, count: groups))
        }
        var entries: [Entry] = []
        for layer in 0..<c.layerCount {
            entries.append(entry(attentionInput(layer), c.hiddenSize))
            entries.append(entry(attentionOutputInput(layer), c.queryWidth))
            entries.append(entry(feedForwardInput(layer), c.hiddenSize))
            if !c.isDense(layer: layer) {
                entries.append(entry(expertInput(layer), c.hiddenSize, groups: c.expertCount))
                entries.append(entry(expertDownInput(layer), c.expertIntermediateSize, groups: c.expertCount))
            }
            let alwaysOn = c.isDense(layer: layer) ? c.denseIntermediateSize : c.sharedIntermediateSize
            if alwaysOn > 0 { entries.append(entry(alwaysOnDownInput(layer), alwaysOn)) }
        }
        entries.append(entry(headInput, c.hiddenSize))
        return entries
    }

    // MARK: - For quantizers

    /// How much each of the numbers that enter counts: positive, with a mean of 1. nil where there is no such entry.
    package func columns(_ name: String) -> [Float]? {
        places[name].map { Self.normalized(entries[$0].means.map(Double.init)) }
    }

    /// An expert's own means count as many tokens as it has served, its layer's mean as many as this: an expert that few tokens chose
    /// has seen too little to be sure, and one that none chose has its layer's.
    private static let priorTokens = 32.0

    /// The same for one expert of an entry that has several.
    package func columns(_ name: String, expert: Int) -> [Float]? {
        guard let entry = places[name].map({ entries[$0] }) else { return nil }
        var layer = [Double](repeating: 0, count: entry.width)
        var total = 0.0
        for g in 0..<entry.groups where entry.counts[g] > 0 {
            let count = Double(entry.counts[g])
            total += count
            for i in 0..<entry.width { layer[i] += count * Double(entry.means[g * entry.width + i]) }
        }
        let own = Double(entry.counts[expert])
        return Self.normalized(
            (0..<entry.width).map { i in
                let mean = total > 0 ? layer[i] / total : 0
                return (own * Double(entry.means[expert * entry.width + i]) + Self.priorTokens * mean)
                    / (own + Self.priorTokens)
            })
    }

    /// Scaled to a mean of 1, and none below a thousandth: what was silent in this text may speak in another.
    private static func normalized(_ means: [Double]) -> [Float] {
        let mean = means.reduce(0, +) / Double(means.count)
        guard mean > 0 else { return Array(repeating: 1, count: means.count) }
        return means.map { Float(max($0 / mean, 1e-3)) }
    }
}
