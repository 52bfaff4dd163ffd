import SampleFiles
import Sigma
import Testing

/// Blocks as they are stored, on the layout of the CPU's kernels.
@Suite struct KVBlockLayoutTests {
    @Test(arguments: KVType.allCases) func unpackingIsTheInverseOfPacking(type: KVType) throws {
        let layout = KVBlockLayout(host: type, try SmallModel.file().configuration)
        let (all, known) = Self.elements(layout)
        // Every byte of a block is some position's, but what fills tiles up to 64; and no byte is two positions'.
        let tiles = layout.headCount * KVBlockLayout.length / KVBlockLayout.tileLength
        #expect(known <= layout.byteCount && known > layout.byteCount - 64 * tiles && Set(all.joined()).count == known)
        var random = SplitMix64(state: 5)
        let original = (0..<layout.byteCount).map { _ in UInt8(truncatingIfNeeded: 1 | random.next()) }
        for positions in [1, 2, 15, 16, 17, 31, 32, 100, 240, 241, 255, 256] {
            var block = original
            let stored = block.withUnsafeMutableBytes { Array(layout.pack($0, positions: positions)) }
            #expect(stored.count == layout.storedSizes(length: positions)[0])
            // Stored bytes are all that comes back; the rest of the memory is anybody's.
            var restored = stored + [UInt8](repeating: 0xee, count: layout.byteCount - stored.count)
            restored.withUnsafeMutableBytes { layout.unpack($0, positions: positions) }
            let kept = all[..<positions].allSatisfy { $0.allSatisfy { restored[$0] == original[$0] } }
            #expect(kept, "\(positions) positions came back changed")
            // The last tile's other positions were forgotten.
            let tileEnd = (positions + 15) / 16 * 16
            let cleared = all[positions..<tileEnd].allSatisfy { $0.allSatisfy { restored[$0] == 0 } }
            #expect(cleared, "something is behind the last of \(positions) positions")
            #expect(stored.count == tileEnd * layout.positionBytes)
        }
    }

    @Test func sizesOfStoredBlocksFollowTheLength() throws {
        let layout = KVBlockLayout(host: .f16, try SmallModel.file().configuration)
        #expect(layout.storedSizes(length: 0).isEmpty)
        #expect(layout.storedSizes(length: 256) == [layout.byteCount])
        #expect(layout.storedSizes(length: 257) == [layout.byteCount, layout.byteCount / 16])
        #expect(layout.storedSizes(length: 528) == [layout.byteCount, layout.byteCount, layout.byteCount / 16])
        #expect([0, 1, 255, 256, 257, 512].map(KVBlockLayout.count) == [0, 1, 1, 1, 2, 2])
    }

    /// Byte offsets of each position's elements and scales in a block, and the number of all of them.
    private static func elements(_ layout: KVBlockLayout) -> ([[Int]], Int) {
        var result = [[Int]](repeating: [], count: KVBlockLayout.length)
        let tile = layout.tile
        for position in 0..<KVBlockLayout.length {
            for head in 0..<layout.headCount {
                let isValue = head / layout.kvHeadCount % 2 == 1
                let start = head * layout.headBytes + position / 16 * tile.byteCount
                for component in 0..<tile.width {
                    let offset = start + tile.offset(isValue, position % 16, component)
                    result[position] += offset..<offset + tile.elementBytes
                }
                guard let scaleOffset = tile.scaleOffset else { continue }
                for component in stride(from: 0, to: tile.width, by: 32) {
                    let offset = start + scaleOffset(position % 16, component)
                    result[position] += offset..<offset + 2
                }
            }
        }
        return (result, result.reduce(0) { $0 + $1.count })
    }
}
