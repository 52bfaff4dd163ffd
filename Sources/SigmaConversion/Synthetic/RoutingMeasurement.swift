import CSigma
import Sigma

/// How a model routes random tokens: which experts it uses, and how often the router of the next layer would have known.
package struct RoutingMeasurement: Sendable {
    package let layerCount: Int
    package let expertCount: Int
    /// Tokens that were routed in every layer.
    package private(set) var tokenCount = 0
    /// [layers, experts]: choices.
    package private(set) var loads: [[Int]]
    /// [layers]: tokens whose first choice the layer's router, on the state that the router of the layer before saw, had chosen too. 0 for
    /// the first layer.
    package private(set) var predicted: [Int]

    /// Share of first choices, over all layers but the first, that were predicted; nil for models of one layer.
    package var predictability: Double? {
        guard layerCount > 1, tokenCount > 0 else { return nil }
        return Double(predicted.reduce(0, +)) / Double(tokenCount * (layerCount - 1))
    }

    /// A layer's largest load over its mean.
    package func imbalance(layer: Int) -> Double {
        Double(loads[layer].max() ?? 0) * Double(expertCount) / Double(max(1, loads[layer].reduce(0, +)))
    }

    /// Runs windows of tokens, uniform over the vocabulary, through the model.
    ///
    /// - Parameters:
    ///   - windows, length: their number, and the tokens of each; every window begins with an empty context.
    ///   - progress: the share that is done, 0...1.
    ///   - isCancelled: asked before every layer.
    /// - Throws: `SigmaError`: `.damaged` for a model that has a dense layer; as the back end; `.interrupted`.
    package init(
        model: ModelFile, windows: Int, length: Int, seed: UInt64, threads: Int,
        progress: (Double) -> Void = { _ in }, isCancelled: () -> Bool = { false }
    ) throws {
        let c = model.configuration
        guard !c.expertsPerToken.contains(0) else {
            throw SigmaError(.damaged, "expected a model with experts in every layer", path: model.path)
        }
        layerCount = c.layerCount
        expertCount = c.expertCount
        loads = Array(repeating: Array(repeating: 0, count: c.expertCount), count: c.layerCount)
        predicted = Array(repeating: 0, count: c.layerCount)
        let backend = try CPUBackend(model: model, threadCount: threads > 0 ? threads : nil, rowLimit: 512)
        let pass = ForwardPass(layerCount: layerCount, backend: backend)
        let sequence = try backend.makeSequence(kvType: .f16)
        let random = SyntheticRandom(seed: seed)
        let batch = Batch()
        for window in 0..<windows {
            sequence.truncate(to: 0)
            for first in stride(from: 0, to: length, by: backend.rowLimit) {
                let tokens = (first..<min(first + backend.rowLimit, length)).map {
                    Int32(random[window * length + $0] % UInt64(c.vocabularySize))
                }
                batch.removeAll()
                batch.append(tokens[...], to: sequence)
                let choices = LayerChoices(model, backend)
                let completed = try pass.run(
                    batch, observer: choices, isCancelled: isCancelled,
                    progress: { layer in
                        let done = window * length + first + tokens.count * layer / c.layerCount
                        progress(Double(done) / Double(windows * length))
                    }, readOut: { _ in })
                guard completed else { throw SigmaError(.interrupted, "interrupted while routing was measured") }
                for layer in 0..<layerCount {
                    count(
                        choices.chosen[layer], layer > 0 ? choices.predicted[layer] : nil, rows: tokens.count,
                        layer: layer)
                }
                tokenCount += tokens.count
            }
        }
    }

    private mutating func count(_ chosen: [Int], _ predictions: [Int]?, rows: Int, layer: Int) {
        for expert in chosen { loads[layer][expert] += 1 }
        guard let predictions else { return }
        for row in 0..<rows where predictions[row] == chosen[row * (chosen.count / rows)] { predicted[layer] += 1 }
    }
}

/// What the layers of one step chose, and what each layer's router says one layer earlier.
private final class LayerChoices: LayerObserver {
    private let model: ModelFile
    private let source: any ActivationSource
    /// [layers]: of each row its choices; and its predicted first choice.
    private(set) var chosen: [[Int]]
    private(set) var predicted: [[Int]]

    init(_ model: ModelFile, _ source: any ActivationSource) {
        self.model = model
        self.source = source
        chosen = Array(repeating: [], count: model.configuration.layerCount)
        predicted = chosen
    }

    func attended(layer: Int) {
        guard layer + 1 < predicted.count else { return }
        predicted[layer + 1] = Self.choices(source.activation(.residual), model, layer: layer + 1)
    }

    func fedForward(layer: Int) { chosen[layer] = source.activation(.chosen).map { Int($0) } }

    /// First choices of a layer's router for residual states [rows, hidden].
    private static func choices(_ residual: [Float], _ model: ModelFile, layer: Int) -> [Int] {
        let c = model.configuration
        let weights = model.weights.layers[layer]
        guard case .mixture(let router, let bias, _, _) = weights.feedForward else { return [] }
        let kernels = sigma_kernels_best().pointee
        var normed = [Float](repeating: 0, count: c.hiddenSize)
        var logits = [Float](repeating: 0, count: c.expertCount)
        return (0..<residual.count / c.hiddenSize).map { row in
            residual.withUnsafeBufferPointer {
                kernels.rms_norm(
                    $0.baseAddress! + row * c.hiddenSize, weights.feedForwardNorm.pointer, c.rmsNormEpsilon, &normed,
                    Int32(c.hiddenSize))
            }
            normed.withUnsafeBufferPointer { normed in
                var input = sigma_activations()
                input.values = normed.baseAddress
                input.value_stride = c.hiddenSize
                kernels.matmul_float(
                    router.data, Int32(router.type.rawValue), Int32(c.expertCount), Int32(c.hiddenSize), &input, 1,
                    &logits, c.expertCount)
            }
            Routing.score(&logits, count: c.expertCount, c.scoring)
            if let bias { for expert in 0..<c.expertCount { logits[expert] += bias.values[expert] } }
            var best = 0
            for expert in 1..<c.expertCount where logits[expert] > logits[best] { best = expert }
            return best
        }
    }
}
