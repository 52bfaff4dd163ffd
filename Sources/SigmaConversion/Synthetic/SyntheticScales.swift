import Sigma
import SystemLibrary

/// How large the weights of a synthetic model must be, so that its activations stay sane and its routing is as predictable as wanted.
///
/// Every layer adds to the residual an update of the same share u of its norm: attention a quarter of the energy, experts the rest.
/// The updates are independent directions, so the norm grows by sqrt(1 + u^2) a layer, and the output projections' weights with it.
/// Everything inside a layer has a root mean square of about 1: normed states, queries, keys, values, gate and up.
struct SyntheticScales: Sendable {
    /// A layer's update over the residual's norm, u.
    let update: Double
    /// Share of tokens for which a layer's router, on the state that the router before it saw, chooses the expert that is used.
    let predictability: Double
    /// Root mean square of the embedding.
    let embedding: Double
    /// Norm of a router's row: the logits' standard deviation.
    let routerNorm = 1.0
    /// Weights of the query and key norms: the product of both is the standard deviation of attention's logits. Large enough that a
    /// token attends to few others, whatever the length of the context: a mean over many would be the same direction for all tokens
    /// and pull them to the same experts.
    let queryKeyNorm = 5.0.squareRoot()
    /// Standard deviation of the output head's logits.
    let logits = 2.0

    private let expertRMS: Double

    /// What attention over some hundred tokens leaves of the values' root mean square: sqrt(sum of squared attention weights) for
    /// logits of standard deviation 5, by simulation.
    private static let attentionRMS = 0.65
    private static let attentionEnergy = 0.25
    /// The residual may grow by this over all layers: beyond it the scales of quantized blocks would leave fp16's range.
    private static let growthLimit = 300.0

    /// - Throws: `SigmaError` (`.usage`) for a predictability that such a model cannot have.
    init(expertCount: Int, layerCount: Int, predictability: Double) throws {
        let agreement = RouterAgreement(expertCount: expertCount)
        update = agreement.noise(for: predictability)
        self.predictability = agreement.share(noise: update)
        let growth = pow(1 + update * update, Double(layerCount) / 2)
        guard growth <= Self.growthLimit else {
            let least = agreement.share(noise: (pow(Self.growthLimit, 2 / Double(layerCount)) - 1).squareRoot())
            throw SigmaError(
                .usage,
                "expected --predictability of at least \(JSONWriter.fixed(least + 0.005, decimals: 2)) for \(layerCount) layers, found \(predictability)"
            )
        }
        // In the middle of all layers the residual's root mean square times u is 1.
        embedding = 1 / (update * growth.squareRoot())
        // A gate of standard normal numbers: E[silu(z)^2], by the trapezoidal rule; up is independent of it.
        var gated = 0.0
        for step in -4000...4000 {
            let z = Double(step) / 500
            let silu = z / (1 + exp(-z))
            gated += silu * silu * exp(-z * z / 2) / 500
        }
        expertRMS = (gated / (2 * Double.pi).squareRoot()).squareRoot() * agreement.weightRMS
    }

    /// Root mean square of the residual before a layer.
    func residual(_ layer: Int) -> Double { embedding * pow(1 + update * update, Double(layer) / 2) }

    /// Of weights whose inputs have a root mean square of 1, for outputs of 1.
    func plain(columns: Int) -> Double { 1 / Double(columns).squareRoot() }

    func attentionOutput(_ layer: Int, columns: Int) -> Double {
        plain(columns: columns) * residual(layer) * update * Self.attentionEnergy.squareRoot() / Self.attentionRMS
    }

    func expertDown(_ layer: Int, columns: Int) -> Double {
        plain(columns: columns) * residual(layer) * update * (1 - Self.attentionEnergy).squareRoot() / expertRMS
    }
}

/// How often the largest of `expertCount` independent normal numbers stays the largest when independent noise is added to all: the
/// choice of a router that sees a state before an update, and after it. By simulation with fixed numbers.
struct RouterAgreement {
    private static let samples = 1 << 14
    /// The noise, for `share`'s range.
    private static let noiseRange = 0.002...1.5

    private let expertCount: Int
    private let logits: [Float]
    private let noise: [Float]
    private let best: [Int]
    /// Root mean square of sigmoid(largest logit): the weight of the chosen expert.
    let weightRMS: Double

    init(expertCount: Int) {
        self.expertCount = expertCount
        let random = SyntheticRandom(seed: 0)
        logits = random.part(0).normals(Self.samples * expertCount)
        noise = random.part(1).normals(Self.samples * expertCount)
        best = Self.best(logits, noise, 0, expertCount)
        var squares = 0.0
        for (sample, expert) in best.enumerated() {
            let weight = 1 / (1 + exp(-Double(logits[sample * expertCount + expert])))
            squares += weight * weight
        }
        weightRMS = (squares / Double(Self.samples)).squareRoot()
    }

    /// 0...1 for noise of this standard deviation (the logits' is 1).
    func share(noise deviation: Double) -> Double {
        let after = Self.best(logits, noise, Float(deviation), expertCount)
        return Double(zip(best, after).count { $0 == $1 }) / Double(Self.samples)
    }

    /// The noise that leaves this share, as near as the range allows.
    func noise(for share: Double) -> Double {
        var (low, high) = (Self.noiseRange.lowerBound, Self.noiseRange.upperBound)
        for _ in 0..<20 {
            let middle = (low + high) / 2
            if self.share(noise: middle) > share { low = middle } else { high = middle }
        }
        return (low + high) / 2
    }

    private static func best(_ logits: [Float], _ noise: [Float], _ deviation: Float, _ count: Int) -> [Int] {
        (0..<samples).map { sample in
            var best = 0
            var most = -Float.infinity
            for expert in 0..<count {
                let value = logits[sample * count + expert] + deviation * noise[sample * count + expert]
                if value > most { (best, most) = (expert, value) }
            }
            return best
        }
    }
}
