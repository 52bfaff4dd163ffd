import CSigma

/// Work of one member in attention: query rows of one segment and one key-value head.
struct AttentionItem {
    var segment: Int
    /// First query row and their number, in the batch.
    var row: Int
    var rows: Int
    var kvHead: Int
    /// The only split to do, its state being kept for the merge; or -1: all splits, one after the other.
    var split: Int
    /// Where the split's state is kept: [item, heads of the group].
    var state: Int
    /// The merge that the split belongs to.
    var merge: Int
}

/// Splits of one row and key-value head, to be merged in order by the member that has done the last of them.
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
    static let queryTile = 128

    var headsPerGroup: Int { configuration.headCount / configuration.kvHeadCount }

    static func attentionScratch(_ configuration: ModelConfiguration, paddedHeadDim: Int) -> Int {
        // The kernel's, then gathered queries, two outputs and four softmax numbers of each.
        let queries = max(queryTile, configuration.headCount / configuration.kvHeadCount)
        return sigma_attention_scratch(Int32(configuration.headDim), Int32(queries)) + queries * (3 * paddedHeadDim + 5)
    }

    /// Cuts the batch's attention into items, head by head. A segment with few rows is split over positions, so that all members have work
    /// at depth; one with many is split over rows. The arithmetic is the same.
    func planAttention() {
        attentionItems.removeAll(keepingCapacity: true)
        mergeItems.removeAll(keepingCapacity: true)
        var states = 0
        defer { splitStateCount = states }
        let tileRows = max(1, Self.queryTile / headsPerGroup)
        for head in 0..<configuration.kvHeadCount {
            for (index, segment) in batch.segments.enumerated() {
                if segment.count <= 2 {
                    for row in 0..<segment.count {
                        let splits = (segment.position + row) / Self.splitLength + 1
                        for split in 0..<splits {
                            attentionItems.append(
                                AttentionItem(
                                    segment: index, row: segment.firstRow + row, rows: 1, kvHead: head, split: split,
                                    state: states + split, merge: mergeItems.count))
                        }
                        mergeItems.append(
                            MergeItem(row: segment.firstRow + row, kvHead: head, firstState: states, splits: splits))
                        states += splits
                    }
                } else {
                    // The last rows see the most positions: they come first, so that no member ends with a long one.
                    var end = segment.count
                    while end > 0 {
                        let start = max(0, end - tileRows)
                        attentionItems.append(
                            AttentionItem(
                                segment: index, row: segment.firstRow + start, rows: end - start, kvHead: head,
                                split: -1, state: 0, merge: -1))
                        end = start
                    }
                }
            }
        }
    }

    package func attend(layer: Int) {
        layerIndex = layer
        let matrices = layers[layer]
        stepBytes +=
            matrices.query.byteCount + matrices.key.byteCount + matrices.value.byteCount + matrices.output.byteCount
        for segment in batch.segments {
            stepBytes +=
                (segment.position + segment.count) * configuration.kvHeadCount * 2 * cache(of: segment).rowBytes
        }
        workspace.progress.base.update(repeating: 0, count: 2 * configuration.kvHeadCount + mergeItems.count)
        run(.attention)
    }

    func attentionBody(_ member: Int32) {
        let layer = layers[layerIndex]
        let c = configuration
        let normed = normalizeRows(layer.attentionNorm, quantized: layer.quantizesAttentionInput, list: 0, member)
        if isFewRows && c.headDim % Int(SIGMA_GROUP) == 0 {
            projectHeads(layer, normed, member)
        } else {
            projectRows(layer, normed, member)
        }
        while let item = team.take(3, of: attentionItems.count, member) { attendItem(attentionItems[item], member) }
        if isFewRows { prefetch(layer.output, team.share(member, of: Self.tiles(c.hiddenSize)) * Self.outputTile) }
        team.barrier(member)

        if layer.output.type.isQuantized && !quantizesAttendedByHead {
            while let row = team.take(5, of: rowCount, member) { quantizeAttended(row, columns: 0..<c.queryWidth) }
            team.barrier(member)
        }
        let attended = activations(workspace.attended.base, workspace.attendedQuantized, width: c.queryWidth)
        while let tile = team.take(6, of: Self.tiles(c.hiddenSize), member) {
            projectOutput(layer, tile, attended, member)
        }
        if isFewRows, let router = layer.router {
            prefetch(router, team.share(member, of: routerTiles) * Self.routerTile)
        }
    }

    static func tiles(_ outputs: Int) -> Int { (outputs + outputTile - 1) / outputTile }

    /// A member's first weights in the layer's attention, on their way.
    func prefetchAttention(layer: Int, _ member: Int32) {
        guard layer < layers.count else {
            if let screen {
                let first = screen.tileRange(team.share(member, of: screen.tiles)).lowerBound
                return sigma_prefetch(screen.planes.group(of: first), 2 * screen.planes.groupBytes)
            }
            prefetch(weights.head, team.share(member, of: headTiles) * Self.headTile)
            return
        }
        let c = configuration
        let head = team.share(member, of: c.kvHeadCount)
        prefetch(layers[layer].query, head * headsPerGroup * c.headDim / Int(SIGMA_GROUP) * Int(SIGMA_GROUP))
    }

    /// q, k and v of few rows, head by head: who ends a head's last tile prepares it, and its attention begins without waiting for others.
    private func projectHeads(_ layer: CPULayer, _ normed: sigma_activations, _ member: Int32) {
        let c = configuration
        let width = c.queryWidth + 2 * c.kvWidth
        let groupWidth = headsPerGroup * c.headDim
        let queryTiles = Self.tiles(groupWidth)
        let kvTiles = Self.tiles(c.headDim)
        let tiles = queryTiles + 2 * kvTiles
        while let item = team.take(1, of: c.kvHeadCount * tiles, member) {
            let (head, tile) = item.quotientAndRemainder(dividingBy: tiles)
            let matrix = tile < queryTiles ? layer.query : tile < queryTiles + kvTiles ? layer.key : layer.value
            let column = tile < queryTiles ? 0 : tile < queryTiles + kvTiles ? c.queryWidth : c.queryWidth + c.kvWidth
            let outputs = tile < queryTiles ? groupWidth : c.headDim
            let inHead = (tile < queryTiles ? tile : (tile - queryTiles) % kvTiles) * Self.outputTile
            let first = head * outputs + inHead
            multiply(
                matrix, first, min(Self.outputTile, outputs - inHead), normed, rows: rowCount,
                workspace.projections.base + column + first, stride: width, member)
            if sigma_count_up(workspace.progress.base + head) == tiles {
                for row in 0..<rowCount { prepareHead(row, head, layer) }
                _ = sigma_count_up(workspace.progress.base + c.kvHeadCount + head)
            }
        }
    }

    /// q, k and v of all rows.
    private func projectRows(_ layer: CPULayer, _ normed: sigma_activations, _ member: Int32) {
        let c = configuration
        let width = c.queryWidth + 2 * c.kvWidth
        let queryTiles = Self.tiles(c.queryWidth)
        let kvTiles = Self.tiles(c.kvWidth)
        while let item = team.take(1, of: queryTiles + 2 * kvTiles, member) {
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
        while let row = team.take(2, of: rowCount, member) {
            for head in 0..<c.kvHeadCount { prepareHead(row, head, layer) }
        }
        if member == 0 {
            for head in 0..<c.kvHeadCount { _ = sigma_count_up(workspace.progress.base + c.kvHeadCount + head) }
        }
        team.barrier(member)
    }

    /// Biases, per-head norm, RoPE and scale of one row's heads of a group; its keys and values go into the cache.
    private func prepareHead(_ row: Int, _ kvHead: Int, _ layer: CPULayer) {
        let c = configuration
        let dim = c.headDim
        let projections = workspace.projections.base + row * (c.queryWidth + 2 * c.kvWidth)
        let firstHead = kvHead * headsPerGroup
        let query = projections + firstHead * dim
        let key = projections + c.queryWidth + kvHead * dim
        let value = key + c.kvWidth
        if let bias = layer.queryBias {
            kernels.add_scaled(query, 1, bias + firstHead * dim, Int32(headsPerGroup * dim))
        }
        if let bias = layer.keyBias { kernels.add_scaled(key, 1, bias + kvHead * dim, Int32(dim)) }
        if let bias = layer.valueBias { kernels.add_scaled(value, 1, bias + kvHead * dim, Int32(dim)) }

        let cosines = workspace.cosines.base + row * dim / 2
        let sines = workspace.sines.base + row * dim / 2
        let scale = 1 / Float(dim).squareRoot()
        for head in 0..<headsPerGroup {
            let query = query + head * dim
            if let norm = layer.queryNorm { kernels.rms_norm(query, norm, c.rmsNormEpsilon, query, Int32(dim)) }
            kernels.rope(query, cosines, sines, Int32(dim / 2))
            let out = workspace.queries.base + (row * c.headCount + firstHead + head) * paddedHeadDim
            out.update(repeating: 0, count: paddedHeadDim)
            kernels.add_scaled(out, scale, query, Int32(dim))
        }

        let (cache, position) = place(of: row)
        let (block, inBlock) = position.quotientAndRemainder(dividingBy: KVCache.blockLength)
        if let norm = layer.keyNorm { kernels.rms_norm(key, norm, c.rmsNormEpsilon, key, Int32(dim)) }
        kernels.rope(key, cosines, sines, Int32(dim / 2))
        var keyRows = cache.rows(block: block, layer: layerIndex, isValue: false, head: kvHead)
        var valueRows = cache.rows(block: block, layer: layerIndex, isValue: true, head: kvHead)
        kernels.store_kv(key, Int32(dim), 0, Int32(inBlock), &keyRows)
        kernels.store_kv(value, Int32(dim), 1, Int32(inBlock), &valueRows)
    }

    /// The sequence and position of a row.
    private func place(of row: Int) -> (KVCache, Int) {
        var index = 0
        while batch.segments[index].firstRow + batch.segments[index].count <= row { index += 1 }
        let segment = batch.segments[index]
        return (cache(of: segment), segment.position + row - segment.firstRow)
    }

    /// Whether the heads of a group fill whole blocks of the output projection's 8-bit input.
    private var quantizesAttendedByHead: Bool { headsPerGroup * configuration.headDim % 32 == 0 }

    private func quantizeAttended(_ row: Int, columns: Range<Int>) {
        let width = configuration.queryWidth
        kernels.quantize_activations(
            workspace.attended.base + row * width + columns.lowerBound,
            workspace.attendedQuantized.base + (row * width + columns.lowerBound) / 32, Int32(columns.count))
    }

    /// Normalised outputs of a row's heads of a group, and their 8-bit form.
    private func writeGroup(_ row: Int, _ kvHead: Int, _ outputs: UnsafePointer<Float>, _ sums: UnsafePointer<Float>) {
        let dim = configuration.headDim
        let first = kvHead * headsPerGroup * dim
        let out = workspace.attended.base + row * configuration.queryWidth + first
        for head in 0..<headsPerGroup {
            kernels.divide(outputs + head * paddedHeadDim, sums[head], out + head * dim, Int32(dim))
        }
        if quantizesAttendedByHead && layers[layerIndex].output.type.isQuantized {
            quantizeAttended(row, columns: first..<first + headsPerGroup * dim)
        }
    }

    private func attendItem(_ item: AttentionItem, _ member: Int32) {
        let segment = batch.segments[item.segment]
        let cache = cache(of: segment)
        let group = headsPerGroup
        let queries = item.rows * group
        let padded = paddedHeadDim
        let firstPosition = segment.position + item.row - segment.firstRow
        sigma_wait_for_count(workspace.progress.base + configuration.kvHeadCount + item.kvHead, 1)

        // The kernel's scratch, then queries, outputs of all splits and of one, sums and maxima, and how much each query sees.
        let kernelScratch = scratch(member)
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
            if split + 1 < cache.blockCount {
                keys.next = UnsafeRawPointer(
                    cache.rows(block: split + 1, layer: layerIndex, isValue: false, head: item.kvHead).tiles)
                values.next = UnsafeRawPointer(
                    cache.rows(block: split + 1, layer: layerIndex, isValue: true, head: item.kvHead).tiles)
            }
            kernels.attend(
                &keys, &values, Int32(configuration.headDim), q, Int32(queries), visible, kernelScratch, maximum, sum,
                output)
        }

        if item.split >= 0 {
            let states = workspace.splitStates.base + item.state * group * 2
            attend(
                split: item.split, states, states + group,
                workspace.splitOutputs.base + item.state * group * padded)
            let done = sigma_count_up(workspace.progress.base + 2 * configuration.kvHeadCount + item.merge)
            if Int(done) == mergeItems[item.merge].splits { merge(mergeItems[item.merge], member) }
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
            writeGroup(item.row + row, item.kvHead, output + row * group * padded, sum + row * group)
        }
    }

    private func merge(_ item: MergeItem, _ member: Int32) {
        let group = headsPerGroup
        let output = scratch(member)
        let sums = output + group * paddedHeadDim
        output.update(repeating: 0, count: group * paddedHeadDim)
        for head in 0..<group {
            var maximum = -Float.infinity
            sums[head] = 0
            for split in 0..<item.splits {
                let states = workspace.splitStates.base + (item.firstState + split) * group * 2
                kernels.merge_attention(
                    &maximum, sums + head, output + head * paddedHeadDim, states[head], states[group + head],
                    workspace.splitOutputs.base + ((item.firstState + split) * group + head) * paddedHeadDim,
                    Int32(configuration.headDim))
            }
        }
        writeGroup(item.row, item.kvHead, output, sums)
    }

    /// residual += W_o attended (+ bias), for one tile of outputs.
    private func projectOutput(_ layer: CPULayer, _ tile: Int, _ attended: sigma_activations, _ member: Int32) {
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
                if let bias = layer.outputBias { kernels.add_scaled(product, 1, bias + first, Int32(count)) }
                kernels.add_scaled(
                    workspace.residual.base + (row + i) * hidden + first, 1, product, Int32(count))
            }
            row += piece
        }
    }
}
