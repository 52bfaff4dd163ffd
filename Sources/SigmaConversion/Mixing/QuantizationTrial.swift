import Sigma
import SigmaStudies

/// Puts quantized weights in the place of one part of a model that is loaded, to see what that does to its distributions.
///
/// The weights are quantized and widened to fp32 again: everything else is computed as before, so nothing but the weights differs.
/// Memory: one part in fp32; for experts, one layer's.
package final class QuantizationTrial {
    private let backend: any WeightExperiments
    private let original: ModelWeights
    private let threads: Int
    private var memory: AnonymousMemory?
    package let parts: [WeightPlan.Part]

    /// - Parameter importance: what errors are weighed by, in the search for scales and in their sum; nil: all columns count alike.
    /// - Throws: `SigmaError`: `.unavailable` if the back end's weights cannot be replaced, `.damaged` if the model's are quantized already.
    package init(engine: Engine, importance: ImportanceMatrix?, threads: Int = 0) throws {
        guard let backend = engine.backend as? any WeightExperiments, let weights = backend.replaceableWeights else {
            throw SigmaError(
                .unavailable, "weights can be replaced only on the CPU, with all of them in memory",
                path: engine.modelPath, remedy: .anyOf([.set(.backend, to: "cpu"), .raise(.memory, least: nil)]))
        }
        let file = engine.model
        var sources: any WeightSources = NativeWeights(file)
        if let importance {
            sources = WeightedSources(
                base: sources, importance: importance, tiedEmbeddings: file.configuration.tiedEmbeddings)
        }
        parts = try WeightPlan(sources, file.configuration).parts
        if let quantized = parts.first(where: { $0.type.isQuantized }) {
            throw SigmaError(
                .damaged, "expected a model whose weights are floats, found \(quantized.type.name)", path: file.path,
                item: quantized.name, remedy: "Convert the checkpoint with --type bf16, or f32, first.")
        }
        self.backend = backend
        original = weights
        self.threads = threads > 0 ? threads : Workers.processorCount
    }

    deinit { restore() }

    /// The type that is tried on a part: the one that changes most. nil: its rows are too short for any.
    package func type(of part: Int) -> WeightType? {
        WeightType.quantizers(columns: parts[part].columns).min {
            ($0.matrixBytes(rows: 16, columns: parts[part].columns), $0.rawValue)
                < ($1.matrixBytes(rows: 16, columns: parts[part].columns), $1.rawValue)
        }
    }

    /// From here on steps compute with the part's weights as `type` has them.
    ///
    /// - Returns: the mean squared error of the part's weights in every type that its rows allow.
    /// - Throws: `SigmaError`: `.damaged` for weights that are not finite or too large for the type, `.unavailable` if memory ends.
    package func replace(_ index: Int, as type: WeightType) throws -> [WeightType: Double] {
        restore()
        let part = parts[index]
        let types = WeightType.quantizers(columns: part.columns)
        precondition(types.contains(type))
        var weights = original
        let targets = try place(part, in: &weights)
        let groups = (part.rows + Self.groupRows - 1) / Self.groupRows
        let sums = SharedSums(count: targets.count * groups * types.count)
        try Workers.forEach(targets.count * groups, threads: threads) { item in
            let (matrix, group) = (item / groups, item % groups)
            let rows = group * Self.groupRows..<min((group + 1) * Self.groupRows, part.rows)
            try Self.quantize(
                part.matrices[matrix], rows, part.columns, types, kept: type,
                to: targets[matrix].values + rows.lowerBound * part.columns, errors: sums.values + item * types.count)
        }
        backend.replaceWeights(weights)
        // In one order, whatever the threads did.
        return Dictionary(
            uniqueKeysWithValues: types.enumerated().map { place, type in
                let sum = stride(from: place, to: sums.count, by: types.count).reduce(0.0) { $0 + sums.values[$1] }
                return (type, sum / Double(part.weightCount))
            })
    }

    /// The model's own weights again.
    package func restore() {
        guard let memory else { return }
        backend.replaceWeights(original)
        memory.free()
        self.memory = nil
    }

    // MARK: - One part

    /// Rows that are quantized at a time.
    private static let groupRows = 16

    private struct Target: @unchecked Sendable { var values: UnsafeMutablePointer<Float> }

    private final class SharedSums: @unchecked Sendable {
        let values: UnsafeMutablePointer<Double>
        let count: Int
        init(count: Int) {
            self.count = count
            values = .allocate(capacity: count)
            values.initialize(repeating: 0, count: count)
        }
        deinit { values.deallocate() }
    }

    /// Takes memory for a part in fp32 and points the weights there.
    ///
    /// - Returns: where each of its matrices begins.
    private func place(_ part: WeightPlan.Part, in weights: inout ModelWeights) throws -> [Target] {
        guard case .expert(let layer, _, let which) = part.roles[0] else {
            let memory = try AnonymousMemory(byteCount: 4 * part.weightCount)
            self.memory = memory
            weights.set(
                WeightMatrix(type: .f32, rows: part.rows, columns: part.columns, data: memory.base), part.roles[0],
                isTied: part.roles[0] == .embedding && original.head.data == original.embedding.data)
            return [Target(values: memory.base.assumingMemoryBound(to: Float.self))]
        }
        guard case .mixture(let router, let bias, let experts, let shared) = weights.layers[layer].feedForward else {
            preconditionFailure("a layer of experts")
        }
        let old = experts.layout
        let layout = ExpertLayout(
            hidden: old.hidden, intermediate: old.intermediate, gateType: which == .gate ? .f32 : old.gateType,
            upType: which == .up ? .f32 : old.upType, downType: which == .down ? .f32 : old.downType)
        let memory = try AnonymousMemory(byteCount: experts.count * layout.stride)
        self.memory = memory
        let replaced = ExpertRecords(base: memory.base, count: experts.count, layout: layout)
        var targets: [Target] = []
        for expert in 0..<experts.count {
            for (kind, from, to) in [
                (WeightRole.MLPPart.gate, experts.gate(expert), replaced.gate(expert)),
                (.up, experts.up(expert), replaced.up(expert)), (.down, experts.down(expert), replaced.down(expert)),
            ] {
                let bytes = UnsafeMutableRawPointer(mutating: to.data)
                if kind == which {
                    targets.append(Target(values: bytes.assumingMemoryBound(to: Float.self)))
                } else {
                    bytes.copyMemory(from: from.data, byteCount: from.byteCount)
                }
            }
        }
        weights.layers[layer].feedForward = .mixture(
            router: router, selectionBias: bias, experts: replaced, shared: shared)
        return targets
    }

    /// - Parameters:
    ///   - target: the rows as `kept` has them.
    ///   - errors: [types] sums of squared errors.
    private static func quantize(
        _ source: any MatrixSource, _ rows: Range<Int>, _ columns: Int, _ types: [WeightType], kept: WeightType,
        to target: UnsafeMutablePointer<Float>, errors: UnsafeMutablePointer<Double>
    ) throws {
        let count = rows.count * columns
        let importance = source.columnImportance
        let blockBytes = types.map { $0.rowBytes(columns) }.max()!
        try withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * count) { floats in
            try withUnsafeTemporaryAllocation(byteCount: rows.count * blockBytes, alignment: 64) { blocks in
                let (values, back) = (floats.baseAddress!, floats.baseAddress! + count)
                try RowConversion.convert(
                    source, rows: rows, columns: columns, as: .f32, .plain, to: UnsafeMutableRawPointer(values))
                for (place, type) in types.enumerated() {
                    if let row = Quantizer.encode(
                        values, rows: rows.count, columns: columns, as: type, importance: importance,
                        to: blocks.baseAddress!)
                    {
                        throw source.failure(
                            "row \(rows.lowerBound + row) has weights too large for \(type.name)")
                    }
                    Quantizer.dequantize(blocks.baseAddress!, type, rows: rows.count, columns: columns, to: back)
                    if type == kept { target.update(from: back, count: count) }
                    var sum = 0.0
                    for index in 0..<count {
                        let error = Double(values[index] - back[index])
                        sum += error * error * Double(importance.map { $0[index % columns] } ?? 1)
                    }
                    errors[place] = sum
                }
            }
        }
    }
}

extension ModelWeights {
    /// Replaces one matrix that is not an expert's.
    fileprivate mutating func set(_ matrix: WeightMatrix, _ role: WeightRole, isTied: Bool) {
        func set(_ mlp: inout MLPWeights, _ part: WeightRole.MLPPart) {
            switch part {
            case .gate: mlp.gate = matrix
            case .up: mlp.up = matrix
            case .down: mlp.down = matrix
            }
        }
        switch role {
        case .embedding:
            embedding = matrix
            if isTied { head = matrix }
        case .head: head = matrix
        case .layer(let layer, .attention(.query)): layers[layer].query = matrix
        case .layer(let layer, .attention(.key)): layers[layer].key = matrix
        case .layer(let layer, .attention(.value)): layers[layer].value = matrix
        case .layer(let layer, .attention(.output)): layers[layer].output = matrix
        case .layer(let layer, .dense(let part)):
            guard case .dense(var mlp) = layers[layer].feedForward else { preconditionFailure("a dense layer") }
            set(&mlp, part)
            layers[layer].feedForward = .dense(mlp)
        case .layer(let layer, .shared(let part)):
            guard case .mixture(let router, let bias, let experts, var shared?) = layers[layer].feedForward else {
                preconditionFailure("a layer with shared experts")
            }
            set(&shared, part)
            layers[layer].feedForward = .mixture(
                router: router, selectionBias: bias, experts: experts, shared: shared)
        case .finalNorm, .layer, .expert: preconditionFailure("no matrix of its own")
        }
    }
}
