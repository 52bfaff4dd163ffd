/// How a model's experts are used by a stream of tokens: the load of every layer, and what a cache of experts would have hit.
///
/// Memory does not grow with the tokens. The cache's accesses come token by token and layer by layer, as in generation, whatever
/// was computed together.
package struct RoutingStatistics: Sendable {
    /// The shape of the model that is watched.
    package struct Model: Sendable {
        package var expertCount: Int
        /// One entry a layer; 0 choices in dense ones.
        package var layers: [RouterRules]
        /// An expert's record in the model file.
        package var expertBytes: Int

        package init(expertCount: Int, layers: [RouterRules], expertBytes: Int) {
            self.expertCount = expertCount
            self.layers = layers
            self.expertBytes = expertBytes
        }

        package init(_ file: ModelFile) {
            let c = file.configuration
            expertCount = c.expertCount
            expertBytes = 0
            layers = []
            for (index, layer) in file.weights.layers.enumerated() {
                var bias: [Float] = []
                if case .mixture(_, let selectionBias, let experts, _) = layer.feedForward {
                    expertBytes = experts.layout.stride
                    bias =
                        selectionBias.map { Array(UnsafeBufferPointer(start: $0.pointer, count: c.expertCount)) } ?? []
                }
                layers.append(
                    RouterRules(
                        expertCount: c.expertCount, choices: c.expertsPerToken[index], scoring: c.scoring,
                        selectionBias: bias))
            }
        }

        package var routedLayers: [Int] { layers.indices.filter { layers[$0].choices > 0 } }
    }

    package let model: Model
    package let temperature: Double
    package private(set) var tokens = 0
    /// Of the layers that have a router.
    package private(set) var loads: [LayerLoad]
    package private(set) var reuse: ReuseDistances
    package private(set) var optimal: OptimalReplacement
    private let routedLayers: [Int]

    /// - Parameter temperature: of the Top-1 load-balancing loss.
    /// - Throws: `SigmaError(.usage)` for a temperature that is not above 0; `.damaged` for a model without routers.
    package init(_ model: Model, temperature: Double = 1) throws {
        guard temperature > 0, temperature.isFinite else {
            throw SigmaError(.usage, "the temperature tau must be above 0, and is \(temperature)")
        }
        routedLayers = model.routedLayers
        guard !routedLayers.isEmpty else {
            throw SigmaError(.damaged, "all layers of the model are dense: there is no routing to measure")
        }
        self.model = model
        self.temperature = temperature
        loads = routedLayers.map { LayerLoad(model.layers[$0], temperature: temperature) }
        reuse = ReuseDistances(itemCount: routedLayers.count * model.expertCount)
        optimal = OptimalReplacement(itemCount: routedLayers.count * model.expertCount)
    }

    /// Adds the tokens of a step.
    package mutating func add(_ routed: RoutedTokens) {
        tokens += routed.rows.count
        for (index, layer) in routedLayers.enumerated() {
            routed.record.forEachRow(of: routed.rows, layer: layer) { logits, chosen in
                loads[index].count(chosen)
                loads[index].weigh(logits)
            }
        }
        for row in routed.rows {
            for (index, layer) in routedLayers.enumerated() {
                for choice in 0..<model.layers[layer].choices {
                    access(layer: index, routed.record.chosen(row: row, layer: layer, choice: choice))
                }
            }
        }
    }

    /// Adds a token of which only the choices are known: those of all layers, one after the other.
    package mutating func add(choices: UnsafeBufferPointer<Int32>) {
        tokens += 1
        var first = 0
        for (index, layer) in routedLayers.enumerated() {
            let chosen = choices[first..<(first + model.layers[layer].choices)]
            first += chosen.count
            loads[index].count(UnsafeBufferPointer(rebasing: chosen))
            for expert in chosen { access(layer: index, Int(expert)) }
        }
    }

    private mutating func access(layer: Int, _ expert: Int) {
        let item = layer * model.expertCount + expert
        reuse.access(item)
        optimal.access(item)
    }

    package var report: RoutingReport { RoutingReport(self, layers: routedLayers) }
}
