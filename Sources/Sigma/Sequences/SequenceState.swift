import Synchronization

/// The keys and values of one sequence, in blocks of 256 positions that are taken as the sequence grows.
///
/// A block may be another sequence's, too: a sequence can begin as another's prefix. A block is written by a sequence that holds it alone, or by
/// the one that it was made for, behind all positions that others see; who must write elsewhere into a shared one copies it first. So what is
/// shared never changes.
///
/// Exclusive: used by one step, or one thread, at a time.
package final class SequenceState: @unchecked Sendable {
    package let layout: KVBlockLayout
    private let store: any KVBlockStore
    /// Tells the sequences of a process apart: no number comes twice.
    private let number = SequenceState.count.add(1, ordering: .relaxed).oldValue
    private static let count = Atomic<Int>(0)
    /// Positions whose keys and values are stored.
    package private(set) var length = 0
    private var blocks: [KVBlock] = []
    /// [blocks]: where each begins, for kernels. Valid until blocks are taken or given back.
    package private(set) var addresses: UnsafeMutablePointer<UInt>
    private var addressCapacity = 16
    /// Another number whenever an address has changed: a device's table follows.
    package private(set) var addressVersion = 0
    /// What the back end keeps beside the blocks.
    package var attachment: AnyObject?

    package init(layout: KVBlockLayout, store: any KVBlockStore) {
        self.layout = layout
        self.store = store
        addresses = .allocate(capacity: addressCapacity)
    }

    deinit { addresses.deallocate() }

    package var kvType: KVType { layout.type }
    package var blockCount: Int { blocks.count }
    /// Bytes of the blocks that it holds, shared ones included.
    package var byteCount: Int { blocks.count * layout.byteCount }

    // MARK: - Growing

    /// Bytes that `reserve` would take.
    package func growth(to positions: Int) -> Int {
        let missing = max(0, KVBlockLayout.count(positions) - blocks.count)
        return (missing + (positions > length && mustCopy ? 1 : 0)) * layout.byteCount
    }

    /// Whether the next position goes to a block that is shared, and not this sequence's to write there.
    private var mustCopy: Bool {
        let (index, position) = length.quotientAndRemainder(dividingBy: KVBlockLayout.length)
        return position != 0 && !isKnownUniquelyReferenced(&blocks[index])
            && !blocks[index].isWritable(from: position, by: number)
    }

    /// Makes room for `positions` positions in all, which may then be written from `length` on.
    /// - Throws: `SigmaError(.unavailable)` if memory ends; what is stored stays.
    package func reserve(_ positions: Int) throws {
        if positions > length, mustCopy {
            let block = try store.makeBlock(layout.byteCount, owner: number)
            let index = length / KVBlockLayout.length
            try store.copy(layout.byteCount, from: blocks[index].address, to: block.address)
            blocks[index] = block
            storeAddress(index)
        }
        while blocks.count * KVBlockLayout.length < positions {
            blocks.append(try store.makeBlock(layout.byteCount, owner: number))
            storeAddress(blocks.count - 1)
        }
    }

    private func storeAddress(_ index: Int) {
        if index >= addressCapacity {
            let larger = UnsafeMutablePointer<UInt>.allocate(capacity: 2 * addressCapacity)
            larger.update(from: addresses, count: index)
            addresses.deallocate()
            addresses = larger
            addressCapacity *= 2
        }
        addresses[index] = blocks[index].address
        addressVersion += 1
    }

    /// A step has written `count` more positions.
    package func advance(by count: Int) { length += count }

    // MARK: - Shrinking

    /// Forgets everything from position `newLength` on. Memory is kept for what comes next, unless it is shared: a spare block is written without
    /// being asked for, so none may be another's, wherever it lies.
    package func truncate(to newLength: Int) {
        guard newLength < length else { return }
        length = max(0, newLength)
        let needed = KVBlockLayout.count(length)
        for index in (needed..<blocks.count).reversed() where !isKnownUniquelyReferenced(&blocks[index]) {
            blocks.remove(at: index)
            addressVersion += 1
        }
        for index in needed..<blocks.count { storeAddress(index) }
    }

    /// Gives back what no stored position lies in.
    package func releaseSpare() {
        let needed = KVBlockLayout.count(length)
        guard blocks.count > needed else { return }
        blocks.removeLast(blocks.count - needed)
        addressVersion += 1
    }

    // MARK: - Sharing

    /// Blocks of a sequence's first positions, for others that begin with the same tokens. They never change.
    package struct Prefix: Sendable {
        package let length: Int
        fileprivate let blocks: [KVBlock]

        package var byteCount: Int { blocks.reduce(0) { $0 + $1.byteCount } }
        package var blockCount: Int { blocks.count }

        /// The first `count` of its positions.
        package func prefix(_ count: Int) -> Prefix {
            precondition(count <= length)
            return Prefix(length: count, blocks: Array(blocks[..<KVBlockLayout.count(count)]))
        }

        /// Calls `body` with each block's address, which tells blocks apart, and its bytes.
        package func forEachBlock(_ body: (_ address: UInt, _ byteCount: Int) -> Void) {
            for block in blocks { body(block.address, block.byteCount) }
        }
    }

    /// The first `count` positions, as they are now.
    package func prefix(_ count: Int) -> Prefix {
        precondition(count <= length)
        let shared = Array(blocks[..<KVBlockLayout.count(count)])
        for (index, block) in shared.enumerated() {
            block.show(min(KVBlockLayout.length, count - index * KVBlockLayout.length))
        }
        return Prefix(length: count, blocks: shared)
    }

    /// Takes the place of whatever is held. Nothing is copied until the sequence grows.
    /// - Parameter prefix: of a sequence with the same layout, of the same back end.
    package func begin(with prefix: Prefix) {
        blocks = prefix.blocks
        length = prefix.length
        for index in blocks.indices { storeAddress(index) }
        addressVersion += 1
    }

    // MARK: - Storing

    /// Sizes in bytes of the blocks that `length` positions are stored in.
    package func storedBlockSizes(length: Int) -> [Int] { layout.storedSizes(length: length) }

    /// Calls `body` with each block's bytes, valid during the call: all that is needed to go on, and nothing of forgotten positions.
    package func forEachStoredBlock(_ body: (_ bytes: UnsafeRawBufferPointer) throws -> Void) throws {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: layout.byteCount, alignment: 64)
        defer { buffer.deallocate() }
        for index in 0..<KVBlockLayout.count(length) {
            try store.read(buffer, from: blocks[index].address)
            try body(layout.pack(buffer, positions: min(KVBlockLayout.length, length - index * KVBlockLayout.length)))
        }
    }

    /// Takes the place of whatever is held: `newLength` positions in blocks that `fill` writes, in the order of `storedBlockSizes`. Memory that was
    /// reserved is used.
    /// - Throws: `SigmaError(.unavailable)` if memory ends; what `fill` throws. The sequence is then empty.
    package func restore(length newLength: Int, _ fill: (_ block: UnsafeMutableRawBufferPointer) throws -> Void) throws
    {
        truncate(to: 0)
        try reserve(newLength)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: layout.byteCount, alignment: 64)
        defer { buffer.deallocate() }
        // What is behind the last position is read, and makes no difference; numbers all the same.
        buffer.initializeMemory(as: UInt8.self, repeating: 0)
        for (index, size) in storedBlockSizes(length: newLength).enumerated() {
            try fill(UnsafeMutableRawBufferPointer(rebasing: buffer[..<size]))
            layout.unpack(buffer, positions: min(KVBlockLayout.length, newLength - index * KVBlockLayout.length))
            try store.write(UnsafeRawBufferPointer(buffer), to: blocks[index].address)
        }
        advance(by: newLength)
        releaseSpare()
    }
}
