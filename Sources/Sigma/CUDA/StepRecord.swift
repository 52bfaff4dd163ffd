import CCUDA

/// What changes from step to step of the same shape: rows, sequences and tiles of queries, written in pinned memory and uploaded by one copy.
///
/// Where its parts lie depends only on the number of rows, so that a graph finds them.
struct StepRecord {
    /// Successive sequences with one type of key-value cache.
    struct Run: Equatable {
        var kvType: KVType
        var firstRow: Int
        var rows: Int
        var firstTile: Int
        var tiles: Int
        /// Of the longest sequence.
        var splits: Int
    }

    private(set) var rowCount = 0
    private(set) var runs: [Run] = []
    private(set) var byteCount = 0
    private(set) var sequencesOffset = 0
    private(set) var tilesOffset = 0

    private static func sequencesOffset(rows: Int) -> Int { rows * MemoryLayout<sigma_cuda_row>.stride }
    private static func tilesOffset(rows: Int) -> Int {
        sequencesOffset(rows: rows) + rows * MemoryLayout<sigma_cuda_sequence>.stride
    }

    /// Bytes for any step of so many rows.
    static func capacity(rows: Int, _ c: ModelConfiguration) -> Int {
        // A tile that is not full for each sequence at most.
        let tiles = rows * (c.headCount / c.kvHeadCount) / Int(SIGMA_CUDA_QUERIES) + 1 + rows
        return tilesOffset(rows: rows) + tiles * MemoryLayout<sigma_cuda_query_tile>.stride
    }

    /// Has the only run's kernels be for so many splits, where they are to serve longer sequences, too.
    mutating func setSplits(_ splits: Int) { runs[0].splits = splits }

    /// - Parameters:
    ///   - batch: its sequences have blocks, and tables, for all of its positions.
    ///   - memory: of `capacity`.
    mutating func write(
        _ batch: Batch, _ c: ModelConfiguration, to memory: UnsafeMutableRawPointer
    ) {
        rowCount = batch.tokens.count
        sequencesOffset = Self.sequencesOffset(rows: rowCount)
        tilesOffset = Self.tilesOffset(rows: rowCount)
        runs.removeAll(keepingCapacity: true)
        let rows = memory.assumingMemoryBound(to: sigma_cuda_row.self)
        let sequences = (memory + sequencesOffset).assumingMemoryBound(to: sigma_cuda_sequence.self)
        let tiles = (memory + tilesOffset).assumingMemoryBound(to: sigma_cuda_query_tile.self)
        var tileCount = 0
        for (index, segment) in batch.segments.enumerated() {
            let owner = segment.sequence
            sequences[index] = sigma_cuda_sequence(
                blocks: owner.deviceTable.address, first_row: Int32(segment.firstRow), rows: Int32(segment.count),
                position: Int32(segment.position), padding: 0)
            for row in 0..<segment.count {
                rows[segment.firstRow + row] = sigma_cuda_row(
                    token: batch.tokens[segment.firstRow + row], position: Int32(segment.position + row),
                    sequence: Int32(index), padding: 0)
            }
            let count = Int(
                sigma_cuda_tile_count(Int32(segment.count), Int32(c.headCount), Int32(c.kvHeadCount)))
            let splits = (segment.position + segment.count + KVBlockLayout.length - 1) / KVBlockLayout.length
            if runs.last?.kvType != owner.kvType {
                runs.append(
                    Run(
                        kvType: owner.kvType, firstRow: segment.firstRow, rows: 0, firstTile: tileCount, tiles: 0,
                        splits: 0))
            }
            let run = runs.count - 1
            runs[run].rows += segment.count
            runs[run].tiles += count
            runs[run].splits = max(runs[run].splits, splits)
            for tile in 0..<count {
                tiles[tileCount + tile] = sigma_cuda_query_tile(
                    sequence: Int32(index), first: Int32(tile * Int(SIGMA_CUDA_QUERIES)))
            }
            tileCount += count
        }
        byteCount = tilesOffset + tileCount * MemoryLayout<sigma_cuda_query_tile>.stride
    }
}
