import CCUDA

/// The operations as lists of kernels. Steps of few rows use kernels that read a matrix once for all rows and prepare inputs on the way; larger
/// ones prepare inputs first and multiply in tiles. Both give the same bits.
extension CUDABackend {
    private var isFew: Bool { record.rowCount <= Int(SIGMA_CUDA_FEW_ROWS) }
    private var rows: Int32 { Int32(record.rowCount) }
    private var hidden: Int32 { Int32(configuration.hiddenSize) }

    func enqueueEmbedding(in stream: CUDAStream) throws(CUDAStatus) {
        var parameters = sigma_cuda_embed(
            embedding: weights.embedding, rows_address: workspace.record, residual: workspace.residual, rows: rows,
            padding: 0)
        try kernels.launch(kernels.embed, sigma_cuda_launch_embed(&parameters), parameters, in: stream)
    }

    /// residual += attention(rmsnorm(residual)), paper section 2.1.
    func enqueueAttention(_ index: Int, in stream: CUDAStream) throws(CUDAStatus) {
        let c = configuration
        let layer = weights.layers[index]
        let stride = c.queryWidth + 2 * c.kvWidth
        func part(_ matrix: sigma_cuda_matrix, _ bias: DeviceAddress, at column: Int) -> sigma_cuda_product {
            product(matrix, bias: bias, to: workspace.projections + DeviceAddress(column * 4), stride: stride)
        }
        try multiply(
            normed(workspace.residual, layer.attentionNorm),
            [
                part(layer.query, layer.queryBias, at: 0), part(layer.key, layer.keyBias, at: c.queryWidth),
                part(layer.value, layer.valueBias, at: c.queryWidth + c.kvWidth),
            ], in: stream)
        for run in record.runs {
            try store(run, index, layer, stride: stride, in: stream)
            try attend(run, index, in: stream)
        }
        try multiply(
            input(Int(SIGMA_CUDA_FLOATS), workspace.attended, columns: Int32(c.queryWidth)),
            [
                product(
                    layer.output, bias: layer.outputBias, to: workspace.residual, stride: c.hiddenSize, adds: true)
            ], in: stream)
    }

    /// Norms of q and k, RoPE, keys and values into the cache.
    private func store(
        _ run: StepRecord.Run, _ index: Int, _ layer: CUDALayer, stride: Int, in stream: CUDAStream
    ) throws(CUDAStatus) {
        let c = configuration
        let first = DeviceAddress(run.firstRow)
        let queryBytes = Int(sigma_cuda_query_bytes(run.kvType.kernelType, Int32(c.headDim)))
        var parameters = sigma_cuda_rope_store(
            projections: workspace.projections + first * DeviceAddress(stride * 4), query_norm: layer.queryNorm,
            key_norm: layer.keyNorm, cosines: rotary.cosines, sines: rotary.sines,
            rows_address: workspace.record + first * DeviceAddress(MemoryLayout<sigma_cuda_row>.stride),
            sequences: workspace.record + DeviceAddress(record.sequencesOffset),
            queries: workspace.queries[run.kvType]! + first * DeviceAddress(c.headCount * queryBytes),
            rows: Int32(run.rows), heads: Int32(c.headCount), kv_heads: Int32(c.kvHeadCount),
            head_dim: Int32(c.headDim), layer: Int32(index), kv_type: run.kvType.kernelType,
            epsilon: c.rmsNormEpsilon, padding: 0)
        try kernels.launch(kernels.ropeStore, sigma_cuda_launch_rope_store(&parameters), parameters, in: stream)
    }

    private func attend(_ run: StepRecord.Run, _ index: Int, in stream: CUDAStream) throws(CUDAStatus) {
        let c = configuration
        var parameters = sigma_cuda_attend(
            queries: workspace.queries[run.kvType]!, rows_address: workspace.record,
            sequences: workspace.record + DeviceAddress(record.sequencesOffset),
            tiles: workspace.record
                + DeviceAddress(
                    record.tilesOffset + run.firstTile * MemoryLayout<sigma_cuda_query_tile>.stride),
            attended: workspace.attended, states: workspace.states, counters: workspace.counters,
            tile_count: Int32(run.tiles), split_count: Int32(run.splits), heads: Int32(c.headCount),
            kv_heads: Int32(c.kvHeadCount), head_dim: Int32(c.headDim), layer: Int32(index),
            kv_type: run.kvType.kernelType, padding: 0)
        // Tiles alone must keep the device busy, and states have only so much room.
        let blocks = (run.tiles + 3) / 4 * c.kvHeadCount
        if blocks >= device.multiprocessorCount || run.tiles * run.splits > workspace.stateCapacity {
            try kernels.launch(
                kernels.attendTiles(run.kvType), sigma_cuda_launch_attend_tiles(&parameters), parameters, in: stream)
        } else {
            try kernels.launch(
                kernels.attendSplits(run.kvType), sigma_cuda_launch_attend_splits(&parameters), parameters, in: stream)
        }
    }

    /// residual += moe(rmsnorm(residual)), or the dense MLP.
    func enqueueFeedForward(_ index: Int, in stream: CUDAStream) throws(CUDAStatus) {
        let layer = weights.layers[index]
        if isFew {
            try feedForwardOfFew(index, layer, in: stream)
        } else {
            try feedForwardOfMany(index, layer, in: stream)
        }
    }

    private func choice(_ index: Int, _ mixture: CUDALayer.Mixture) -> sigma_cuda_choose {
        sigma_cuda_choose(
            logits: workspace.routerLogits, bias: mixture.selectionBias, chosen: chosenAddress(index),
            weights: workspace.weights, rows: rows, experts: Int32(mixture.expertCount),
            choices: Int32(mixture.choices), softmax: configuration.scoring == .softmax ? 1 : 0,
            normalizes: mixture.normalizes ? 1 : 0, scale: configuration.routedScalingFactor)
    }

    private func feedForwardOfFew(_ index: Int, _ layer: CUDALayer, in stream: CUDAStream) throws(CUDAStatus) {
        let normed = normed(workspace.residual, layer.feedForwardNorm)
        if let mixture = layer.mixture {
            var parameters = sigma_cuda_route(
                input: normed, router: mixture.router, choose: choice(index, mixture), counter: workspace.routeCounter)
            try kernels.launch(kernels.route, sigma_cuda_launch_route(&parameters), parameters, in: stream)
            var gate = sigma_cuda_expert_gate(
                input: normed, records: experts.records(layer: index), chosen: chosenAddress(index),
                gate: workspace.gate, up: workspace.up, gate_matrix: mixture.gate, up_matrix: mixture.up, rows: rows,
                choices: Int32(mixture.choices))
            try kernels.launch(kernels.expertGate, sigma_cuda_launch_expert_gate(&gate), gate, in: stream)
        }
        if let mlp = layer.alwaysOn {
            let width = Int(mlp.gate.rows)
            try multiply(
                normed,
                [
                    product(mlp.gate, to: workspace.sharedGate, stride: width),
                    product(mlp.up, to: workspace.sharedUp, stride: width),
                ], in: stream)
        }
        let nothing = sigma_cuda_matrix()
        var down = sigma_cuda_expert_down(
            records: layer.mixture == nil ? 0 : experts.records(layer: index), chosen: chosenAddress(index),
            weights: workspace.weights, gate: workspace.gate, up: workspace.up, shared_gate: workspace.sharedGate,
            shared_up: workspace.sharedUp, residual: workspace.residual, down: layer.mixture?.down ?? nothing,
            shared: layer.alwaysOn?.down ?? nothing, rows: rows, choices: Int32(layer.mixture?.choices ?? 0))
        try kernels.launch(kernels.expertDown, sigma_cuda_launch_expert_down(&down), down, in: stream)
    }

    private func feedForwardOfMany(_ index: Int, _ layer: CUDALayer, in stream: CUDAStream) throws(CUDAStatus) {
        let c = configuration
        let alwaysOn = layer.alwaysOn
        // One prepared input serves the router, the experts and the shared ones.
        var readers: [sigma_cuda_matrix] = []
        if let mlp = alwaysOn { readers += [mlp.gate, mlp.up] }
        if let mixture = layer.mixture { readers += [mixture.router, mixture.gate, mixture.up] }
        let prepared = try prepare(
            normed(workspace.residual, layer.feedForwardNorm), for: readers, rows: rows, in: stream)
        if let mixture = layer.mixture {
            try multiplyPrepared(
                prepared, [product(mixture.router, to: workspace.routerLogits, stride: mixture.expertCount)],
                rows: rows, in: stream)
            var choose = choice(index, mixture)
            try kernels.launch(kernels.choose, sigma_cuda_launch_choose(&choose), choose, in: stream)
            try runExperts(index, mixture, prepared, in: stream)
        }
        if let mlp = alwaysOn {
            let width = Int(mlp.gate.rows)
            try multiplyPrepared(
                prepared,
                [
                    product(mlp.gate, to: workspace.sharedGate, stride: width),
                    product(mlp.up, to: workspace.sharedUp, stride: width),
                ], rows: rows, in: stream)
            let gated = try prepare(
                input(
                    Int(SIGMA_CUDA_GATED), workspace.sharedGate, other: workspace.sharedUp, columns: Int32(width)),
                for: [mlp.down], rows: rows, floats: workspace.sharedFloats, blocks: workspace.sharedBlocks, in: stream)
            try multiplyPrepared(
                gated, [product(mlp.down, to: workspace.sharedOutputs, stride: c.hiddenSize)], rows: rows, in: stream)
        }
        var combine = sigma_cuda_combine(
            outputs: workspace.expertOutputs, weights: workspace.weights,
            shared: alwaysOn == nil ? 0 : workspace.sharedOutputs, residual: workspace.residual, rows: rows,
            choices: Int32(layer.mixture?.choices ?? 0), hidden: hidden, padding: 0)
        try kernels.launch(kernels.combine, sigma_cuda_launch_combine(&combine), combine, in: stream)
    }

    /// Outputs of the chosen experts, one row for each slot (row * choices + choice), grouped by expert.
    private func runExperts(
        _ index: Int, _ mixture: CUDALayer.Mixture, _ prepared: sigma_cuda_input, in stream: CUDAStream
    ) throws(CUDAStatus) {
        let slots = rows * Int32(mixture.choices)
        let tileCount = sigma_cuda_expert_tile_count(slots, Int32(mixture.expertCount))
        var sort = sigma_cuda_sort(
            chosen: chosenAddress(index), order: workspace.order, tiles: workspace.expertTiles, slots: slots,
            experts: Int32(mixture.expertCount), tile_count: tileCount, padding: 0)
        try kernels.launch(kernels.sort, sigma_cuda_launch_sort(&sort), sort, in: stream)

        func multiply(
            _ input: sigma_cuda_input, _ products: [sigma_cuda_product], divisor: Int32
        ) throws(CUDAStatus) {
            var parameters = sigma_cuda_multiply()
            parameters.input = input
            parameters.records = experts.records(layer: index)
            parameters.order = workspace.order
            parameters.tiles = workspace.expertTiles
            parameters.rows = slots
            parameters.tile_count = tileCount
            parameters.input_divisor = divisor
            parameters.count = Int32(products.count)
            set(&parameters.products, products)
            try kernels.launch(kernels.multiply, sigma_cuda_launch_multiply(&parameters), parameters, in: stream)
        }
        let width = mixture.layout.intermediate
        try multiply(
            prepared,
            [
                product(mixture.gate, to: workspace.gate, stride: width),
                product(mixture.up, to: workspace.up, stride: width),
            ], divisor: Int32(mixture.choices))
        let gated = try prepare(
            input(Int(SIGMA_CUDA_GATED), workspace.gate, other: workspace.up, columns: Int32(width)),
            for: [mixture.down], rows: slots, floats: workspace.gatedFloats, blocks: workspace.gatedBlocks, in: stream)
        try multiply(
            gated, [product(mixture.down, to: workspace.expertOutputs, stride: configuration.hiddenSize)], divisor: 1)
    }

    /// workspace.logits [rows, vocabulary] = head(rmsnorm(residual)).
    func enqueueHead(_ range: Range<Int>, in stream: CUDAStream) throws(CUDAStatus) {
        precondition(range.lowerBound >= 0 && range.upperBound <= record.rowCount && range.count <= headRowLimit)
        countHead()
        let count = Int32(range.count)
        let first = DeviceAddress(range.lowerBound * configuration.hiddenSize * 4)
        let prepared = try prepare(
            normed(workspace.residual + first, weights.finalNorm), for: [weights.head], rows: count,
            floats: workspace.headFloats, blocks: workspace.headBlocks, in: stream)
        try multiplyPrepared(
            prepared, [product(weights.head, to: workspace.logits, stride: configuration.vocabularySize)], rows: count,
            in: stream)
    }

    /// The largest of `workspace.logits`, as keys [rows, count].
    ///
    /// - Returns: where they are.
    func enqueueTop(
        rows: Int, count: Int, isLimited: Bool, in stream: CUDAStream
    ) throws(CUDAStatus) -> DeviceAddress {
        var (target, other) = workspace.keys
        var parameters = sigma_cuda_top(
            logits: workspace.logits, keys: 0, allowed: isLimited ? workspace.allowed : 0, output: target,
            rows: Int32(rows), count: Int32(configuration.vocabularySize),
            stride: Int32(configuration.vocabularySize), top: Int32(count))
        while true {
            try kernels.launch(kernels.top, sigma_cuda_launch_top(&parameters), parameters, in: stream)
            let slices = sigma_cuda_slices(parameters.count)
            guard slices > 1 else { return target }
            swap(&target, &other)
            parameters.keys = other
            parameters.allowed = 0
            parameters.output = target
            parameters.count = slices * Int32(count)
        }
    }

    // MARK: - Products

    private func input(
        _ kind: Int, _ values: DeviceAddress, other: DeviceAddress = 0, columns: Int32
    ) -> sigma_cuda_input {
        sigma_cuda_input(
            values: values, other: other, kind: Int32(kind), columns: columns, epsilon: configuration.rmsNormEpsilon,
            padding: 0)
    }

    private func normed(_ values: DeviceAddress, _ norm: DeviceAddress) -> sigma_cuda_input {
        input(Int(SIGMA_CUDA_NORMED), values, other: norm, columns: hidden)
    }

    private func product(
        _ matrix: sigma_cuda_matrix, bias: DeviceAddress = 0, to output: DeviceAddress, stride: Int, adds: Bool = false
    ) -> sigma_cuda_product {
        sigma_cuda_product(
            matrix: matrix, bias: bias, output: output, stride: Int32(stride), adds: adds ? 1 : 0)
    }

    /// Products of all of the step's rows.
    private func multiply(
        _ input: sigma_cuda_input, _ products: [sigma_cuda_product], in stream: CUDAStream
    ) throws(CUDAStatus) {
        guard !isFew else { return try project(input, products, rows: rows, in: stream) }
        let prepared = try prepare(input, for: products.map(\.matrix), rows: rows, in: stream)
        try multiplyPrepared(prepared, products, rows: rows, in: stream)
    }

    private func project(
        _ input: sigma_cuda_input, _ products: [sigma_cuda_product], rows: Int32, in stream: CUDAStream
    ) throws(CUDAStatus) {
        var parameters = sigma_cuda_project()
        parameters.input = input
        parameters.count = Int32(products.count)
        parameters.rows = rows
        set(&parameters.products, products)
        try kernels.launch(kernels.project, sigma_cuda_launch_project(&parameters), parameters, in: stream)
    }

    private func multiplyPrepared(
        _ prepared: sigma_cuda_input, _ products: [sigma_cuda_product], rows: Int32, in stream: CUDAStream
    ) throws(CUDAStatus) {
        guard rows > Int32(SIGMA_CUDA_FEW_ROWS) else { return try project(prepared, products, rows: rows, in: stream) }
        var parameters = sigma_cuda_multiply()
        parameters.input = prepared
        parameters.count = Int32(products.count)
        parameters.rows = rows
        parameters.input_divisor = 1
        set(&parameters.products, products)
        try kernels.launch(kernels.multiply, sigma_cuda_launch_multiply(&parameters), parameters, in: stream)
    }

    /// The forms of an input that the matrices take: fp32 for float ones, blocks in 8 bits for packed ones.
    private func prepare(
        _ input: sigma_cuda_input, for matrices: [sigma_cuda_matrix], rows: Int32, floats: DeviceAddress? = nil,
        blocks: DeviceAddress? = nil, in stream: CUDAStream
    ) throws(CUDAStatus) -> sigma_cuda_input {
        let floats = floats ?? workspace.floats
        let blocks = blocks ?? workspace.blocks
        let hasPacked = matrices.contains { $0.isPacked }
        let hasFloats = matrices.contains { !$0.isPacked }
        // What is fp32 already needs no copy.
        let isPlain = input.kind == Int32(SIGMA_CUDA_FLOATS)
        var parameters = sigma_cuda_prepare(
            input: input, floats: hasFloats && !isPlain ? floats : 0, blocks: hasPacked ? blocks : 0, rows: rows,
            padding: 0)
        if parameters.floats != 0 || parameters.blocks != 0 {
            try kernels.launch(kernels.prepare, sigma_cuda_launch_prepare(&parameters), parameters, in: stream)
        }
        var prepared = input
        prepared.kind = Int32(SIGMA_CUDA_PREPARED)
        prepared.values = isPlain ? input.values : floats
        prepared.other = blocks
        return prepared
    }

    /// Writes a C array of four.
    private func set<Products: BitwiseCopyable>(_ target: inout Products, _ products: [sigma_cuda_product]) {
        withUnsafeMutableBytes(of: &target) { bytes in
            let array = bytes.bindMemory(to: sigma_cuda_product.self)
            for (index, product) in products.enumerated() { array[index] = product }
        }
    }
}
