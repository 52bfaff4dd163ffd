/// What a layer's router gave for the rows of the current step, in the back end's memory: valid until its next operation.
package struct LayerRouting {
    package let rows: Int
    /// [rows, experts], fp32: before sigmoid or softmax, without the selection bias.
    package let logits: UnsafePointer<Float>
    /// [rows, choices]: experts, the preferred first.
    package let chosen: UnsafePointer<Int32>

    package init(rows: Int, logits: UnsafePointer<Float>, chosen: UnsafePointer<Int32>) {
        self.rows = rows
        self.logits = logits
        self.chosen = chosen
    }
}

/// The routing of one step: logits and choices of every row, in every layer that has a router.
///
/// Holds rows x (experts + choices) x 4 bytes a layer, and is used again by the next step. Steps go layer by layer and statistics
/// token by token, and a step that fails must leave no trace: therefore a copy.
package final class RoutingRecord {
    private struct Layer {
        let choices: Int
        var logits: [Float] = []
        var chosen: [Int32] = []
    }

    package let expertCount: Int
    private var layers: [Layer]

    package init(_ configuration: ModelConfiguration) {
        expertCount = configuration.expertCount
        layers = configuration.expertsPerToken.map { Layer(choices: $0) }
    }

    package var layerCount: Int { layers.count }
    /// Experts that a token uses in a layer; 0 in dense layers.
    package func choices(layer: Int) -> Int { layers[layer].choices }

    func removeAll() {
        for index in layers.indices {
            layers[index].logits.removeAll(keepingCapacity: true)
            layers[index].chosen.removeAll(keepingCapacity: true)
        }
    }

    func store(_ routing: LayerRouting?, layer: Int) {
        guard let routing else { return }
        let choices = layers[layer].choices
        layers[layer].logits.append(
            contentsOf: UnsafeBufferPointer(start: routing.logits, count: routing.rows * expertCount))
        layers[layer].chosen.append(
            contentsOf: UnsafeBufferPointer(start: routing.chosen, count: routing.rows * choices))
    }

    /// Calls `body` with a layer's logits [experts] and choices [choices] of each row; with nothing in a dense layer.
    package func forEachRow(
        of rows: Range<Int>, layer: Int,
        _ body: (_ logits: UnsafeBufferPointer<Float>, _ chosen: UnsafeBufferPointer<Int32>) -> Void
    ) {
        let choices = layers[layer].choices
        guard choices > 0 else { return }
        layers[layer].logits.withUnsafeBufferPointer { logits in
            layers[layer].chosen.withUnsafeBufferPointer { chosen in
                for row in rows {
                    body(
                        UnsafeBufferPointer(rebasing: logits[(row * expertCount)..<((row + 1) * expertCount)]),
                        UnsafeBufferPointer(rebasing: chosen[(row * choices)..<((row + 1) * choices)]))
                }
            }
        }
    }

    /// Expert of a row's choice in a layer.
    @inline(__always)
    package func chosen(row: Int, layer: Int, choice: Int) -> Int {
        Int(layers[layer].chosen[row * layers[layer].choices + choice])
    }
}

/// Successive tokens of one sequence, routed in one step that has completed. The record is the next step's again afterwards.
package struct RoutedTokens {
    package let record: RoutingRecord
    package let rows: Range<Int>
    /// As many as rows.
    package let tokens: ArraySlice<Int32>
    /// Tells the sequences of a process apart.
    package let sequence: Int
    /// Of the first token in its sequence.
    package let position: Int

    package init(record: RoutingRecord, rows: Range<Int>, tokens: ArraySlice<Int32>, sequence: Int, position: Int) {
        precondition(rows.count == tokens.count)
        self.record = record
        self.rows = rows
        self.tokens = tokens
        self.sequence = sequence
        self.position = position
    }
}

/// Sees how tokens are routed, step by step, on the engine's thread: what takes long here holds up every generation.
package protocol RoutingObserver: AnyObject, Sendable {
    func observe(_ tokens: RoutedTokens)
}
