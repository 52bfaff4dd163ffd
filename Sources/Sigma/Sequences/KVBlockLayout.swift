/// Where the elements of 16 successive positions of one head lie: a tile. Back ends have layouts of their own; C headers say them, once for
/// Swift and for the kernels.
package struct KVTileLayout: Sendable {
    /// Names the layout in files: who restores must have the same.
    package let name: String
    package let byteCount: Int
    /// Bytes of an element; of q8_0 without its scale.
    package let elementBytes: Int
    /// Components of a position: head_dim and what it is padded with.
    package let width: Int
    /// Byte offset of an element in a tile of keys or of values.
    package let offset: @Sendable (_ isValue: Bool, _ position: Int, _ component: Int) -> Int
    /// Byte offset of the fp16 scale of 32 components from `component` on; nil: there are no scales.
    package let scaleOffset: (@Sendable (_ position: Int, _ component: Int) -> Int)?

    package init(
        name: String, byteCount: Int, elementBytes: Int, width: Int,
        offset: @escaping @Sendable (_ isValue: Bool, _ position: Int, _ component: Int) -> Int,
        scaleOffset: (@Sendable (_ position: Int, _ component: Int) -> Int)?
    ) {
        self.name = name
        self.byteCount = byteCount
        self.elementBytes = elementBytes
        self.width = width
        self.offset = offset
        self.scaleOffset = scaleOffset
    }
}

/// A block of keys and values: 256 positions of one sequence, [layer][keys, values][kvHead] times 16 tiles of 16 positions, so that attention
/// reads one head's positions in a row.
package struct KVBlockLayout: Sendable {
    /// Positions of a block and of a tile. Attention's splits are blocks, too.
    package static let length = 256
    package static let tileLength = 16

    package let type: KVType
    package let tile: KVTileLayout
    package let layerCount: Int
    package let kvHeadCount: Int

    package init(type: KVType, tile: KVTileLayout, layerCount: Int, kvHeadCount: Int) {
        self.type = type
        self.tile = tile
        self.layerCount = layerCount
        self.kvHeadCount = kvHeadCount
    }

    /// Bytes of one head's keys, or values, in a block.
    package var headBytes: Int { Self.length / Self.tileLength * tile.byteCount }
    /// Heads of keys and of values, of all layers.
    package var headCount: Int { layerCount * 2 * kvHeadCount }
    package var byteCount: Int { headCount * headBytes }
    /// Bytes of one position's keys and values.
    package var positionBytes: Int { byteCount / Self.length }

    /// Where one head's keys or values begin in a block.
    @inline(__always)
    package func headOffset(layer: Int, isValue: Bool, head: Int) -> Int {
        ((layer * 2 + (isValue ? 1 : 0)) * kvHeadCount + head) * headBytes
    }

    /// Blocks that `positions` positions lie in.
    package static func count(_ positions: Int) -> Int { (positions + length - 1) / length }
}

// Storing: of each head the tiles that the positions fill, one head behind the other; what lies behind the last position is zero.
extension KVBlockLayout {
    /// Sizes in bytes of the stored blocks of `length` positions.
    package func storedSizes(length: Int) -> [Int] {
        stride(from: 0, to: length, by: Self.length).map { storedSize(positions: min(Self.length, length - $0)) }
    }

    private func storedHeadBytes(positions: Int) -> Int {
        (positions + Self.tileLength - 1) / Self.tileLength * tile.byteCount
    }
    private func storedSize(positions: Int) -> Int { headCount * storedHeadBytes(positions: positions) }

    /// Moves a whole block's first `positions` positions together.
    /// - Returns: the stored form, at the block's begin.
    package func pack(_ block: UnsafeMutableRawBufferPointer, positions: Int) -> UnsafeRawBufferPointer {
        let stored = storedHeadBytes(positions: positions)
        for head in 0..<headCount {
            let target = UnsafeMutableRawBufferPointer(rebasing: block[head * stored..<(head + 1) * stored])
            // Towards the front: what is moved has been read.
            target.baseAddress!.moveBytes(from: block.baseAddress! + head * headBytes, count: stored)
            if positions % Self.tileLength > 0 {
                clear(
                    UnsafeMutableRawBufferPointer(rebasing: target.suffix(tile.byteCount)),
                    from: positions % Self.tileLength, isValue: head / kvHeadCount % 2 == 1)
            }
        }
        return UnsafeRawBufferPointer(rebasing: block[..<storedSize(positions: positions)])
    }

    /// The inverse: the stored form at the block's begin becomes a block.
    package func unpack(_ block: UnsafeMutableRawBufferPointer, positions: Int) {
        let stored = storedHeadBytes(positions: positions)
        guard stored < headBytes else { return }
        // From the last head on: what lies behind has been moved.
        for head in (0..<headCount).reversed() {
            (block.baseAddress! + head * headBytes).moveBytes(from: block.baseAddress! + head * stored, count: stored)
        }
    }

    /// Zeros a tile's positions from `first` on: what is there was forgotten, or never written.
    private func clear(_ bytes: UnsafeMutableRawBufferPointer, from first: Int, isValue: Bool) {
        func zero(_ offset: Int, _ count: Int) { for byte in offset..<offset + count { bytes[byte] = 0 } }
        for position in first..<Self.tileLength {
            for component in 0..<tile.width { zero(tile.offset(isValue, position, component), tile.elementBytes) }
            guard let scaleOffset = tile.scaleOffset else { continue }
            for component in stride(from: 0, to: tile.width, by: 32) { zero(scaleOffset(position, component), 2) }
        }
    }
}

extension UnsafeMutableRawPointer {
    /// Both ranges may overlap.
    fileprivate func moveBytes(from source: UnsafeRawPointer, count: Int) { copyMemory(from: source, byteCount: count) }
}
