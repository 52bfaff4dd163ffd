import CSigma

/// Attention: residual += W_o attention(rmsnorm(residual)), paper section 2.1. One operation of the team.
final class CPUAttention: TeamOperation, @unchecked Sendable {
    /// The part's own activations. Row-major fp32 unless stated.
    struct Buffers: CPUBuffers {
        let configuration: ModelConfiguration
        let paddedHeadDim: Int
        /// [rows, headDim / 2] of each row's position.
        var cosines = CPUBuffer<Float>()
        var sines = CPUBuffer<Float>()
        /// [rows, queryWidth + 2 kvWidth]: q, k and v side by side.
        var projections = CPUBuffer<Float>()
        /// [rows, headCount, padded headDim]: after norm, RoPE and scaling.
        var queries = CPUBuffer<Float>()
        /// [rows, queryWidth]: heads side by side, input of the output projection.
        var attended = CPUBuffer<Float>()
        var attendedQuantized = CPUBuffer<sigma_activation_block>()
        /// Softmax states of splits: per item and query of its group a maximum and a sum; and [padded headDim] outputs.
        var splitStates = CPUBuffer<Float>()
        var splitOutputs = CPUBuffer<Float>()
        /// What members have done of the layer's attention: of each key-value head its tiles of q, k and v, then 1 when it can be attended, then
        /// of each merge the splits.
        var progress = CPUBuffer<Int32>()

        init(_ configuration: ModelConfiguration, paddedHeadDim: Int) {
            self.configuration = configuration
            self.paddedHeadDim = paddedHeadDim
        }

        mutating func visit(_ shape: StepShape, _ visitor: inout some BufferVisitor) throws {
            let c = configuration
            let rows = shape.rows
            let group = c.headCount / c.kvHeadCount
            try visitor.visit(&cosines, rows * c.headDim / 2)
            try visitor.visit(&sines, rows * c.headDim / 2)
            try visitor.visit(&projections, rows * (c.queryWidth + 2 * c.kvWidth))
            try visitor.visit(&queries, rows * c.headCount * paddedHeadDim)
            try visitor.visit(&attended, rows * c.queryWidth)
            try visitor.visit(&attendedQuantized, rows * (c.queryWidth / 32))
            try visitor.visit(&splitStates, shape.splitStates * group * 2)
            try visitor.visit(&splitOutputs, shape.splitStates * group * paddedHeadDim)
            try visitor.visit(&progress, 2 * c.kvHeadCount + shape.merges)
        }
    }

    private let context: CPUContext
    private let configuration: ModelConfiguration
    private let rotary: RotaryEmbedding
    var buffers: Buffers
    private var plan = AttentionPlan()
    // Of the layer that is computed now.
    private var layerIndex = 0
    private var layer: CPULayer

    init(_ context: CPUContext) {
        let c = context.configuration
        self.context = context
        configuration = c
        rotary = RotaryEmbedding(headDim: c.headDim, theta: c.ropeTheta, scaling: c.ropeScaling)
        buffers = Buffers(c, paddedHeadDim: context.paddedHeadDim)
        layer = context.layers[0]
    }

    private var kernels: sigma_kernels { context.kernels }
    private var team: ThreadTeam { context.team }
    private var headsPerGroup: Int { context.headsPerGroup }
    private var paddedHeadDim: Int { context.paddedHeadDim }
    private var rowCount: Int { context.rowCount }

    static func scratchLength(_ configuration: ModelConfiguration, paddedHeadDim: Int) -> Int {
        // The kernel's, then gathered queries, two outputs and four softmax numbers of each.
        let queries = max(AttentionPlan.queryTile, configuration.headCount / configuration.kvHeadCount)
        return sigma_attention_scratch(Int32(configuration.headDim), Int32(queries)) + queries * (3 * paddedHeadDim + 5)
    }

    /// Plans the step's attention, and writes the angles of its rows: the buffers have room for them.
    func begin() {
        let c = configuration
        plan.make(context.batch.segments, kvHeadCount: c.kvHeadCount, headsPerGroup: headsPerGroup)
        for segment in context.batch.segments {
            for index in 0..<segment.count {
                let offset = (segment.firstRow + index) * c.headDim / 2
                rotary.write(
                    position: segment.position + index, cosines: buffers.cosines.base + offset,
                    sines: buffers.sines.base + offset)
            }
        }
    }

    func attend(layer index: Int) {
        layerIndex = index
        layer = context.layers[index]
        context.stepBytes +=
            layer.query.byteCount + layer.key.byteCount + layer.value.byteCount + layer.output.byteCount
        for segment in context.batch.segments {
            context.stepBytes +=
                (segment.position + segment.count) * segment.sequence.layout.positionBytes / configuration.layerCount
        }
        buffers.progress.base.update(repeating: 0, count: 2 * configuration.kvHeadCount + plan.merges.count)
        team.run(self)
    }

    /// Prefetches a member's first weights in a layer's attention.
    func prefetch(layer index: Int, _ member: Int32) {
        let head = team.share(member, of: configuration.kvHeadCount)
        let row = head * headsPerGroup * configuration.headDim
        context.prefetch(context.layers[index].query, row / Int(SIGMA_GROUP) * Int(SIGMA_GROUP))
    }

    override func perform(_ member: Int32) {
        let layer = layer
        let c = configuration
        let normed = context.normalizeRows(
            layer.attentionNorm, quantized: layer.quantizesAttentionInput, list: 0, member)
        if context.isFewRows && c.headDim % Int(SIGMA_GROUP) == 0 {
            projectHeads(layer, normed, member)
        } else {
            projectRows(layer, normed, member)
        }
        while let item = team.take(3, of: plan.items.count, member) { attendItem(plan.items[item], member) }
        if context.isFewRows {
            context.prefetch(
                layer.output, team.share(member, of: CPUContext.tiles(c.hiddenSize)) * CPUContext.outputTile)
        }
        team.barrier(member)

        if layer.output.type.isQuantized && !quantizesAttendedByHead {
            while let row = team.take(5, of: rowCount, member) { quantizeAttended(row, columns: 0..<c.queryWidth) }
            team.barrier(member)
        }
        let attended = context.input(buffers.attended.base, buffers.attendedQuantized, width: c.queryWidth)
        while let tile = team.take(6, of: CPUContext.tiles(c.hiddenSize), member) {
            projectOutput(layer, tile, attended, member)
        }
        if context.isFewRows, let router = layer.router {
            context.prefetch(router, team.share(member, of: CPUFeedForward.routerTiles(c)) * CPUFeedForward.routerTile)
        }
    }

    /// q, k and v of few rows, head by head: the member that finishes a head's last tile prepares the head, whose attention then
    /// begins without waiting for the others.
    private func projectHeads(_ layer: CPULayer, _ normed: sigma_activations, _ member: Int32) {
        let c = configuration
        let width = c.queryWidth + 2 * c.kvWidth
        let groupWidth = headsPerGroup * c.headDim
        let queryTiles = CPUContext.tiles(groupWidth)
        let kvTiles = CPUContext.tiles(c.headDim)
        let tiles = queryTiles + 2 * kvTiles
        while let item = team.take(1, of: c.kvHeadCount * tiles, member) {
            let (head, tile) = item.quotientAndRemainder(dividingBy: tiles)
            let matrix = tile < queryTiles ? layer.query : tile < queryTiles + kvTiles ? layer.key : layer.value
            let column = tile < queryTiles ? 0 : tile < queryTiles + kvTiles ? c.queryWidth : c.queryWidth + c.kvWidth
            let outputs = tile < queryTiles ? groupWidth : c.headDim
            let inHead = (tile < queryTiles ? tile : (tile - queryTiles) % kvTiles) * CPUContext.outputTile
            let first = head * outputs + inHead
            context.multiply(
                matrix, first, min(CPUContext.outputTile, outputs - inHead), normed, rows: rowCount,
                buffers.projections.base + column + first, stride: width, member)
            if sigma_count_up(buffers.progress.base + head) == tiles {
                for row in 0..<rowCount { prepareHead(row, head, layer) }
                _ = sigma_count_up(buffers.progress.base + c.kvHeadCount + head)
            }
        }
    }

    /// q, k and v of all rows.
    private func projectRows(_ layer: CPULayer, _ normed: sigma_activations, _ member: Int32) {
        let c = configuration
        let width = c.queryWidth + 2 * c.kvWidth
        let queryTiles = CPUContext.tiles(c.queryWidth)
        let kvTiles = CPUContext.tiles(c.kvWidth)
        while let item = team.take(1, of: queryTiles + 2 * kvTiles, member) {
            let (matrix, tile, column) =
                item < queryTiles
                ? (layer.query, item, 0)
                : item < queryTiles + kvTiles
                    ? (layer.key, item - queryTiles, c.queryWidth)
                    : (layer.value, item - queryTiles - kvTiles, c.queryWidth + c.kvWidth)
            let first = tile * CPUContext.outputTile
            context.multiply(
                matrix, first, min(CPUContext.outputTile, matrix.rows - first), normed, rows: rowCount,
                buffers.projections.base + column + first, stride: width, member)
        }
        team.barrier(member)
        while let row = team.take(2, of: rowCount, member) {
            for head in 0..<c.kvHeadCount { prepareHead(row, head, layer) }
        }
        if member == 0 {
            for head in 0..<c.kvHeadCount { _ = sigma_count_up(buffers.progress.base + c.kvHeadCount + head) }
        }
        team.barrier(member)
    }

    /// Biases, per-head norm, RoPE and scale of one row's heads of a group; its keys and values go into the cache.
    private func prepareHead(_ row: Int, _ kvHead: Int, _ layer: CPULayer) {
        let c = configuration
        let dim = c.headDim
        let projections = buffers.projections.base + row * (c.queryWidth + 2 * c.kvWidth)
        let firstHead = kvHead * headsPerGroup
        let query = projections + firstHead * dim
        let key = projections + c.queryWidth + kvHead * dim
        let value = key + c.kvWidth
        if let bias = layer.queryBias {
            kernels.add_scaled(query, 1, bias + firstHead * dim, Int32(headsPerGroup * dim))
        }
        if let bias = layer.keyBias { kernels.add_scaled(key, 1, bias + kvHead * dim, Int32(dim)) }
        if let bias = layer.valueBias { kernels.add_scaled(value, 1, bias + kvHead * dim, Int32(dim)) }

        let cosines = buffers.cosines.base + row * dim / 2
        let sines = buffers.sines.base + row * dim / 2
        let scale = 1 / Float(dim).squareRoot()
        for head in 0..<headsPerGroup {
            let query = query + head * dim
            if let norm = layer.queryNorm { kernels.rms_norm(query, norm, c.rmsNormEpsilon, query, Int32(dim)) }
            kernels.rope(query, cosines, sines, Int32(dim / 2))
            let out = buffers.queries.base + (row * c.headCount + firstHead + head) * paddedHeadDim
            out.update(repeating: 0, count: paddedHeadDim)
            kernels.add_scaled(out, scale, query, Int32(dim))
        }

        let (sequence, position) = place(of: row)
        let (block, inBlock) = position.quotientAndRemainder(dividingBy: KVBlockLayout.length)
        if let norm = layer.keyNorm { kernels.rms_norm(key, norm, c.rmsNormEpsilon, key, Int32(dim)) }
        kernels.rope(key, cosines, sines, Int32(dim / 2))
        var keyRows = rows(of: sequence, block: block, isValue: false, head: kvHead)
        var valueRows = rows(of: sequence, block: block, isValue: true, head: kvHead)
        kernels.store_kv(key, Int32(dim), 0, Int32(inBlock), &keyRows)
        kernels.store_kv(value, Int32(dim), 1, Int32(inBlock), &valueRows)
    }

    /// The sequence and position of a row.
    private func place(of row: Int) -> (SequenceState, Int) {
        let segments = context.batch.segments
        var index = 0
        while segments[index].rows.upperBound <= row { index += 1 }
        return (segments[index].sequence, segments[index].position + row - segments[index].firstRow)
    }

    /// One head's keys or values at the positions of a block.
    @inline(__always)
    private func rows(of sequence: SequenceState, block: Int, isValue: Bool, head: Int) -> sigma_kv_rows {
        let base = UnsafeMutableRawPointer(bitPattern: sequence.addresses[block])!
        return sigma_kv_rows(
            tiles: base + sequence.layout.headOffset(layer: layerIndex, isValue: isValue, head: head),
            type: sequence.kvType.kernelType, next: nil)
    }

    /// Whether the heads of a group fill whole blocks of the output projection's 8-bit input.
    private var quantizesAttendedByHead: Bool { headsPerGroup * configuration.headDim % 32 == 0 }

    private func quantizeAttended(_ row: Int, columns: Range<Int>) {
        let width = configuration.queryWidth
        kernels.quantize_activations(
            buffers.attended.base + row * width + columns.lowerBound,
            buffers.attendedQuantized.base + (row * width + columns.lowerBound) / 32, Int32(columns.count))
    }

    /// Normalised outputs of a row's heads of a group, and their 8-bit form.
    private func writeGroup(_ row: Int, _ kvHead: Int, _ outputs: UnsafePointer<Float>, _ sums: UnsafePointer<Float>) {
        let dim = configuration.headDim
        let first = kvHead * headsPerGroup * dim
        let out = buffers.attended.base + row * configuration.queryWidth + first
        for head in 0..<headsPerGroup {
            kernels.divide(outputs + head * paddedHeadDim, sums[head], out + head * dim, Int32(dim))
        }
        if quantizesAttendedByHead && layer.output.type.isQuantized {
            quantizeAttended(row, columns: first..<first + headsPerGroup * dim)
        }
    }

    private func attendItem(_ item: AttentionItem, _ member: Int32) {
        let segment = context.batch.segments[item.segment]
        let sequence = segment.sequence
        let group = headsPerGroup
        let queries = item.rows * group
        let padded = paddedHeadDim
        let firstPosition = segment.position + item.row - segment.firstRow
        sigma_wait_for_count(buffers.progress.base + configuration.kvHeadCount + item.kvHead, 1)

        // The kernel's scratch, then queries, outputs of all splits and of one, sums and maxima, and how much each query sees.
        let kernelScratch = context.scratch(member)
        let q = kernelScratch + sigma_attention_scratch(Int32(configuration.headDim), Int32(queries))
        let output = q + queries * padded
        let splitOutput = output + queries * padded
        let maximum = splitOutput + queries * padded
        let sum = maximum + queries
        let splitMaximum = sum + queries
        let splitSum = splitMaximum + queries
        let visible = UnsafeMutableRawPointer(splitSum + queries).assumingMemoryBound(to: Int32.self)

        for row in 0..<item.rows {
            let source =
                buffers.queries.base
                + ((item.row + row) * configuration.headCount + item.kvHead * group) * padded
            (q + row * group * padded).update(from: source, count: group * padded)
        }
        func attend(
            split: Int, _ maximum: UnsafeMutablePointer<Float>, _ sum: UnsafeMutablePointer<Float>,
            _ output: UnsafeMutablePointer<Float>
        ) {
            for row in 0..<item.rows {
                let seen = firstPosition + row + 1 - split * KVBlockLayout.length
                for head in 0..<group { visible[row * group + head] = Int32(min(max(seen, 0), KVBlockLayout.length)) }
            }
            var keys = rows(of: sequence, block: split, isValue: false, head: item.kvHead)
            var values = rows(of: sequence, block: split, isValue: true, head: item.kvHead)
            if split + 1 < sequence.blockCount {
                keys.next = UnsafeRawPointer(
                    rows(of: sequence, block: split + 1, isValue: false, head: item.kvHead).tiles)
                values.next = UnsafeRawPointer(
                    rows(of: sequence, block: split + 1, isValue: true, head: item.kvHead).tiles)
            }
            kernels.attend(
                &keys, &values, Int32(configuration.headDim), q, Int32(queries), visible, kernelScratch, maximum, sum,
                output)
        }

        if item.split >= 0 {
            let states = buffers.splitStates.base + item.state * group * 2
            attend(
                split: item.split, states, states + group,
                buffers.splitOutputs.base + item.state * group * padded)
            let done = sigma_count_up(buffers.progress.base + 2 * configuration.kvHeadCount + item.merge)
            if Int(done) == plan.merges[item.merge].splits { merge(plan.merges[item.merge], member) }
            return
        }
        for query in 0..<queries {
            maximum[query] = -.infinity
            sum[query] = 0
        }
        output.update(repeating: 0, count: queries * padded)
        for split in 0...((firstPosition + item.rows - 1) / KVBlockLayout.length) {
            attend(split: split, splitMaximum, splitSum, splitOutput)
            for query in 0..<queries {
                kernels.merge_attention(
                    maximum + query, sum + query, output + query * padded, splitMaximum[query], splitSum[query],
                    splitOutput + query * padded, Int32(configuration.headDim))
            }
        }
        for row in 0..<item.rows {
            writeGroup(item.row + row, item.kvHead, output + row * group * padded, sum + row * group)
        }
    }

    private func merge(_ item: MergeItem, _ member: Int32) {
        let group = headsPerGroup
        let output = context.scratch(member)
        let sums = output + group * paddedHeadDim
        output.update(repeating: 0, count: group * paddedHeadDim)
        for head in 0..<group {
            var maximum = -Float.infinity
            sums[head] = 0
            for split in 0..<item.splits {
                let states = buffers.splitStates.base + (item.firstState + split) * group * 2
                kernels.merge_attention(
                    &maximum, sums + head, output + head * paddedHeadDim, states[head], states[group + head],
                    buffers.splitOutputs.base + ((item.firstState + split) * group + head) * paddedHeadDim,
                    Int32(configuration.headDim))
            }
        }
        writeGroup(item.row, item.kvHead, output, sums)
    }

    /// residual += W_o attended (+ bias), for one tile of outputs.
    private func projectOutput(_ layer: CPULayer, _ tile: Int, _ attended: sigma_activations, _ member: Int32) {
        let hidden = configuration.hiddenSize
        let first = tile * CPUContext.outputTile
        let count = min(CPUContext.outputTile, hidden - first)
        let out = context.scratch(member) + context.scratchLength - StepPath.rowPiece * CPUContext.outputTile
        var row = 0
        while row < rowCount {
            let piece = min(StepPath.rowPiece, rowCount - row)
            var input = attended
            input.values += row * configuration.queryWidth
            input.blocks += row * (configuration.queryWidth / 32)
            context.multiply(layer.output, first, count, input, rows: piece, out, stride: CPUContext.outputTile, member)
            for i in 0..<piece {
                let product = out + i * CPUContext.outputTile
                if let bias = layer.outputBias { kernels.add_scaled(product, 1, bias + first, Int32(count)) }
                kernels.add_scaled(
                    context.activations.residual.base + (row + i) * hidden + first, 1, product, Int32(count))
            }
            row += piece
        }
    }
}
