import CSigma

/// Predicts the experts of layers to come in steps of few rows: the router of a layer ahead, on the state that this layer's router sees.
///
/// The disk then works while this layer's experts and the next layer's attention are computed. The members do the products beside the routing of the
/// rows; what they choose is told to the cache once this layer's own experts were asked for.
final class ExpertPrefetcher {
    private let cache: ExpertCache
    private let choices: [Int]
    private let largestChoice: Int
    /// Of steps with one row, with a few, and with more: what pays in one kind need not pay in another.
    private var trials: [PredictionTrial]
    private var rowCount = 0
    /// Of this step: experts that its rows asked for, each once a layer.
    private var requestCount = 0
    private var stepBegin = 0.0
    /// Layers ahead: [distance - 1, row, choice].
    private let chosen: UnsafeMutablePointer<Int32>
    /// [layers]: what was predicted last for each; empty: nothing.
    private var predicted: [[Expert]]
    private(set) var isActive = false

    static let distance = 2
    private static let rowLimit = StepPath.predictedRows

    init(_ cache: ExpertCache, _ configuration: ModelConfiguration, mode: PredictionMode) {
        self.cache = cache
        choices = configuration.expertsPerToken
        largestChoice = choices.max() ?? 0
        trials = Array(repeating: PredictionTrial(mode), count: 3)
        chosen = .allocate(capacity: Self.distance * Self.rowLimit * max(1, largestChoice))
        chosen.initialize(repeating: 0, count: Self.distance * Self.rowLimit * max(1, largestChoice))
        predicted = Array(repeating: [], count: choices.count)
    }

    deinit { chosen.deallocate() }

    func beginStep(rows: Int) {
        rowCount = rows
        requestCount = 0
        isActive = rows <= Self.rowLimit && trials[kind].isOn
        stepBegin = monotonicTime()
        for layer in predicted.indices { predicted[layer].removeAll(keepingCapacity: true) }
    }

    func endStep() {
        guard rowCount <= Self.rowLimit, requestCount > 0 else { return }
        trials[kind].add(monotonicTime() - stepBegin, work: Double(requestCount))
    }

    /// The trial of the step's kind.
    private var kind: Int { rowCount == 1 ? 0 : rowCount <= Self.rowLimit / 2 ? 1 : 2 }

    /// Predictions to be computed while a layer is routed.
    func items(behind layer: Int) -> Int { min(Self.distance, choices.count - 1 - layer) * rowCount }

    /// Row and layer of an item, and where its choices go.
    func target(_ item: Int, behind layer: Int) -> (row: Int, layer: Int, chosen: UnsafeMutablePointer<Int32>) {
        let (distance, row) = item.quotientAndRemainder(dividingBy: rowCount)
        return (row, layer + 1 + distance, chosen + item * largestChoice)
    }

    /// The layer's experts were asked for: counts what was right, and prefetches the next layers'.
    func prefetch(after layer: Int, chosen actual: [Expert]) {
        requestCount += actual.count
        guard isActive else { return }
        if !predicted[layer].isEmpty {
            cache.countPredictions(
                predicted[layer].count, right: predicted[layer].count(where: { actual.contains($0) }))
        }
        for distance in 0..<min(Self.distance, choices.count - 1 - layer) {
            let next = layer + 1 + distance
            predicted[next].removeAll(keepingCapacity: true)
            for row in 0..<rowCount {
                for choice in 0..<choices[next] {
                    let expert = Expert(Int(chosen[(distance * rowCount + row) * largestChoice + choice]))
                    if !predicted[next].contains(expert) { predicted[next].append(expert) }
                }
            }
            if !predicted[next].isEmpty { cache.prefetch(predicted[next], layer: next) }
        }
    }
}

extension CPUExpertWaves {
    /// One row's choice in a layer to come, as if nothing were added to its state before.
    func predict(_ item: Int, _ member: Int32) {
        let target = prefetcher.target(item, behind: feedForward.layerIndex)
        let c = context.configuration
        let kernels = context.kernels
        let layer = context.layers[target.layer]
        guard let router = layer.router else { return }
        // Scratch: marks [experts], scores [experts], weights [choices], the normalized state [hidden].
        let marks = context.scratch(member)
        let scores = marks + (c.expertCount + 3) / 4
        let choiceWeights = scores + c.expertCount
        let normed = choiceWeights + c.expertCount
        kernels.rms_norm(
            context.activations.residual.base + target.row * c.hiddenSize, layer.feedForwardNorm, c.rmsNormEpsilon,
            normed, Int32(c.hiddenSize))
        var input = sigma_activations(
            values: UnsafePointer(normed), value_stride: c.hiddenSize, blocks: nil, block_stride: 0, index: nil)
        kernels.matmul_float(
            router.data, Int32(router.type.rawValue), Int32(c.expertCount), Int32(c.hiddenSize), &input, 1, scores,
            c.expertCount)
        Routing.score(scores, count: c.expertCount, c.scoring)
        Routing.choose(
            scores: scores, bias: layer.selectionBias, count: c.expertCount, choices: c.expertsPerToken[target.layer],
            normalizes: false, scalingFactor: 1, chosen: target.chosen, weights: choiceWeights,
            isTaken: UnsafeMutableRawPointer(marks).assumingMemoryBound(to: Bool.self))
    }
}
