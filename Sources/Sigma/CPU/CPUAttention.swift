import CSigma

/// Work of one member in attention: query rows of one segment and one key-value head.
struct AttentionItem {
    var segment: Int
    /// First query row and their number, in the batch.
    var row: Int
    var rows: Int
    var kvHead: Int
    /// The only split to do, its state being kept for `MergeItem`; or -1: all splits, one after the other.
    var split: Int
    /// Where the split's state is kept: [item, heads of the group].
    var state: Int
}

/// Splits of one row and key-value head, to be merged in order.
struct MergeItem {
    var row: Int
    var kvHead: Int
    var firstState: Int
    var splits: Int
}

extension CPUBackend {
    /// Positions in a split: splits lie at multiples of this, whatever the batch. Also the cache's block.
    static var splitLength: Int { KVCache.blockLength }
    /// Query vectors that share one read of keys and values.
    static let queryTile = 64

    var headsPerGroup: Int { configuration.headCount / configuration.kvHeadCount }

    /// Floats that one call of the kernel uses.
    private static func kernelScratch(_ paddedHeadDim: Int) -> Int {
        Int(SIGMA_ATTENTION_BLOCK) * (2 * paddedHeadDim + 8)
    }

    static func attentionScratch(_ configuration: ModelConfiguration, paddedHeadDim: Int) -> Int {
        // The kernel's, then gathered queries, two outputs and four softmax numbers of each.
        let queries = max(queryTile, configuration.headCount / configuration.kvHeadCount)
        return kernelScratch(paddedHeadDim) + queries * (3 * paddedHeadDim + 5)
    }

    /// Cuts the batch's attention into items. A segment with few rows is split over positions, so that all members have work
    /// at depth; one with many is split over rows. The arithmetic is the same.
    func planAttention() {
        attentionItems.removeAll(keepingCapacity: true)
        mergeItems.removeAll(keepingCapacity: true)
        var states = 0
        defer { splitStateCount = states }
        let tileRows = max(1, Self.queryTile / headsPerGroup)
        for (index, segment) in batch.segments.enumerated() {
            if segment.count <= 2 {
                for row in 0..<segment.count {
                    let splits = (segment.position + row) / Self.splitLength + 1
                    for head in 0..<configuration.kvHeadCount {
                        mergeItems.append(
                            MergeItem(row: segment.firstRow + row, kvHead: head, firstState: states, splits: splits))
                        for split in 0..<splits {
                            attentionItems.append(
                                AttentionItem(
                                    segment: index, row: segment.firstRow + row, rows: 1, kvHead: head, split: split,
                                    state: states))
                            states += 1
                        }
                    }
                }
            } else {
                for head in 0..<configuration.kvHeadCount {
                    // The last rows see the most positions: they come first, so that no member ends with a long one.
                    var end = segment.count
                    while end > 0 {
                        let start = max(0, end - tileRows)
                        attentionItems.append(
                            AttentionItem(
                                segment: index, row: segment.firstRow + start, rows: end - start, kvHead: head,
                                split: -1, state: 0))
                        end = start
                    }
                }
            }
        }
    }

    package func attend(layer: Int) {
        layerIndex = layer
        let matrices = weights.layers[layer]
        stepBytes +=
            matrices.query.byteCount + matrices.key.byteCount + matrices.value.byteCount + matrices.output.byteCount
        for segment in batch.segments {
            stepBytes +=
                (segment.position + segment.count) * configuration.kvHeadCount * 2 * cache(of: segment).rowBytes
        }
        run(.attention)
    }

    func attentionBody(_ member: Int32) {
        let layer = weights.layers[layerIndex]
        let c = configuration
        let width = c.queryWidth + 2 * c.kvWidth
        let quantizesInput = layer.query.type.isQuantized || layer.key.type.isQuantized || layer.value.type.isQuantized
        while let row = team.take(0, of: rowCount) {
            normalize(row: row, to: row, layer.attentionNorm, quantized: quantizesInput)
        }
        team.barrier(member)

        let normed = activations(workspace.normed.base, workspace.normedQuantized, width: c.hiddenSize)
        let queryTiles = Self.tiles(c.queryWidth)
        let kvTiles = Self.tiles(c.kvWidth)
        while let item = team.take(1, of: queryTiles + 2 * kvTiles) {
            let (matrix, tile, column) =
                item < queryTiles
                ? (layer.query, item, 0)
                : item < queryTiles + kvTiles
                    ? (layer.key, item - queryTiles, c.queryWidth)
                    : (layer.value, item - queryTiles - kvTiles, c.queryWidth + c.kvWidth)
            let first = tile * Self.outputTile
            multiply(
                matrix, first, min(Self.outputTile, matrix.rows - first), normed, rows: rowCount,
                workspace.projections.base + column + first, stride: width, member)
        }
        team.barrier(member)

        while let row = team.take(2, of: rowCount) { prepareHeads(row, layer) }
        team.barrier(member)

        while let item = team.take(3, of: attentionItems.count) { attendItem(attentionItems[item], member) }
        if !mergeItems.isEmpty {
            team.barrier(member)
            while let item = team.take(4, of: mergeItems.count) { merge(mergeItems[item], member) }
        }
        team.barrier(member)

        if layer.output.type.isQuantized {
            while let row = team.take(5, of: rowCount) {
                kernels.quantize_activations(
                    workspace.attended.base + row * c.queryWidth,
                    workspace.attendedQuantized.base + row * (c.queryWidth / 32), Int32(c.queryWidth))
            }
            team.barrier(member)
        }

        let attended = activations(workspace.attended.base, workspace.attendedQuantized, width: c.queryWidth)
        while let tile = team.take(6, of: Self.tiles(c.hiddenSize)) {
            projectOutput(layer, tile, attended, member)
        }
    }

    static func tiles(_ outputs: Int) -> Int { (outputs + outputTile - 1) / outputTile }

    /// Biases, per-head norm, RoPE and scale of one row; its keys and values go into the cache.
    private func prepareHeads(_ row: Int, _ layer: LayerWeights) {
        let c = configuration
        let dim = c.headDim
        let projections = workspace.projections.base + row * (c.queryWidth + 2 * c.kvWidth)
        let keys = projections + c.queryWidth
        let values = keys + c.kvWidth
        if let bias = layer.queryBias { kernels.add_scaled(projections, 1, bias.pointer, Int32(c.queryWidth)) }
        if let bias = layer.keyBias { kernels.add_scaled(keys, 1, bias.pointer, Int32(c.kvWidth)) }
        if let bias = layer.valueBias { kernels.add_scaled(values, 1, bias.pointer, Int32(c.kvWidth)) }

        let cosines = workspace.cosines.base + row * dim / 2
        let sines = workspace.sines.base + row * dim / 2
        let scale = 1 / Float(dim).squareRoot()
        for head in 0..<c.headCount {
            let query = projections + head * dim
            if let norm = layer.queryNorm {
                kernels.rms_norm(query, norm.pointer, c.rmsNormEpsilon, query, Int32(dim))
            }
            kernels.rope(query, cosines, sines, Int32(dim / 2))
            let out = workspace.queries.base + (row * c.headCount + head) * paddedHeadDim
            for i in 0..<dim { out[i] = query[i] * scale }
            for i in dim..<paddedHeadDim { out[i] = 0 }
        }

        let (cache, position) = place(of: row)
        let (block, inBlock) = position.quotientAndRemainder(dividingBy: KVCache.blockLength)
        for head in 0..<c.kvHeadCount {
            let key = keys + head * dim
            if let norm = layer.keyNorm { kernels.rms_norm(key, norm.pointer, c.rmsNormEpsilon, key, Int32(dim)) }
            kernels.rope(key, cosines, sines, Int32(dim / 2))
            var keyRows = cache.rows(block: block, layer: layerIndex, isValue: false, head: head)
            var valueRows = cache.rows(block: block, layer: layerIndex, isValue: true, head: head)
            kernels.store_kv(key, Int32(dim), 0, Int32(inBlock), &keyRows)
            kernels.store_kv(values + head * dim, Int32(dim), 1, Int32(inBlock), &valueRows)
        }
    }

    /// The sequence and position of a row.
    private func place(of row: Int) -> (KVCache, Int) {
        var index = 0
        while batch.segments[index].firstRow + batch.segments[index].count <= row { index += 1 }
        let segment = batch.segments[index]
        return (cache(of: segment), segment.position + row - segment.firstRow)
    }

    private func attendItem(_ item: AttentionItem, _ member: Int32) {
        let segment = batch.segments[item.segment]
        let cache = cache(of: segment)
        let group = headsPerGroup
        let queries = item.rows * group
        let padded = paddedHeadDim
        let firstPosition = segment.position + item.row - segment.firstRow

        // The kernel's scratch, then queries, outputs of all splits and of one, sums and maxima, and how much each query sees.
        let kernelScratch = scratch(member)
        let q = kernelScratch + Self.kernelScratch(padded)
        let output = q + queries * padded
        let splitOutput = output + queries * padded
        let maximum = splitOutput + queries * padded
        let sum = maximum + queries
        let splitMaximum = sum + queries
        let splitSum = splitMaximum + queries
        let visible = UnsafeMutableRawPointer(splitSum + queries).assumingMemoryBound(to: Int32.self)

        for row in 0..<item.rows {
            let source =
                workspace.queries.base
                + ((item.row + row) * configuration.headCount + item.kvHead * group) * padded
            (q + row * group * padded).update(from: source, count: group * padded)
        }
        func attend(
            split: Int, _ maximum: UnsafeMutablePointer<Float>, _ sum: UnsafeMutablePointer<Float>,
            _ output: UnsafeMutablePointer<Float>
        ) {
            for row in 0..<item.rows {
                let seen = firstPosition + row + 1 - split * Self.splitLength
                for head in 0..<group { visible[row * group + head] = Int32(min(max(seen, 0), Self.splitLength)) }
            }
            var keys = cache.rows(block: split, layer: layerIndex, isValue: false, head: item.kvHead)
            var values = cache.rows(block: split, layer: layerIndex, isValue: true, head: item.kvHead)
            kernels.attend(
                &keys, &values, Int32(configuration.headDim), q, Int32(queries), visible, kernelScratch, maximum, sum,
                output)
        }

        if item.split >= 0 {
            let states = workspace.splitStates.base + item.state * group * 2
            attend(
                split: item.split, states, states + group,
                workspace.splitOutputs.base + item.state * group * padded)
            return
        }
        for query in 0..<queries {
            maximum[query] = -.infinity
            sum[query] = 0
        }
        output.update(repeating: 0, count: queries * padded)
        for split in 0...((firstPosition + item.rows - 1) / Self.splitLength) {
            attend(split: split, splitMaximum, splitSum, splitOutput)
            for query in 0..<queries {
                kernels.merge_attention(
                    maximum + query, sum + query, output + query * padded, splitMaximum[query], splitSum[query],
                    splitOutput + query * padded, Int32(configuration.headDim))
            }
        }
        for row in 0..<item.rows {
            for head in 0..<group {
                let query = row * group + head
                writeHead(item.row + row, item.kvHead * group + head, output + query * padded, sum[query])
            }
        }
    }

    private func merge(_ item: MergeItem, _ member: Int32) {
        let group = headsPerGroup
        let output = scratch(member)
        for head in 0..<group {
            var maximum = -Float.infinity
            var sum: Float = 0
            output.update(repeating: 0, count: paddedHeadDim)
            for split in 0..<item.splits {
                let states = workspace.splitStates.base + (item.firstState + split) * group * 2
                kernels.merge_attention(
                    &maximum, &sum, output, states[head], states[group + head],
                    workspace.splitOutputs.base + ((item.firstState + split) * group + head) * paddedHeadDim,
                    Int32(configuration.headDim))
            }
            writeHead(item.row, item.kvHead * group + head, output, sum)
        }
    }

    private func writeHead(_ row: Int, _ head: Int, _ output: UnsafePointer<Float>, _ sum: Float) {
        let out = workspace.attended.base + row * configuration.queryWidth + head * configuration.headDim
        for i in 0..<configuration.headDim { out[i] = output[i] / sum }
    }

    /// residual += W_o attended (+ bias), for one tile of outputs.
    private func projectOutput(_ layer: LayerWeights, _ tile: Int, _ attended: sigma_activations, _ member: Int32) {
        let hidden = configuration.hiddenSize
        let first = tile * Self.outputTile
        let count = min(Self.outputTile, hidden - first)
        let out = scratch(member) + scratchLength - Self.rowPiece * Self.outputTile
        var row = 0
        while row < rowCount {
            let piece = min(Self.rowPiece, rowCount - row)
            var input = attended
            input.values += row * configuration.queryWidth
            input.blocks += row * (configuration.queryWidth / 32)
            multiply(layer.output, first, count, input, rows: piece, out, stride: Self.outputTile, member)
            for i in 0..<piece {
                let product = out + i * Self.outputTile
                if let bias = layer.outputBias { kernels.add_scaled(product, 1, bias.pointer + first, Int32(count)) }
                kernels.add_scaled(
                    workspace.residual.base + (row + i) * hidden + first, 1, product, Int32(count))
            }
            row += piece
        }
    }
}
