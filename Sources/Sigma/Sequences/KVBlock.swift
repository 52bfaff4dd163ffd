import Synchronization

/// Where blocks of keys and values live: the process's memory, or a device's. Any thread may call.
package protocol KVBlockStore: AnyObject, Sendable {
    /// Memory for a block. Its contents are anything that a kernel may read.
    /// - Throws: `SigmaError(.unavailable)` if memory ends.
    func take(_ byteCount: Int) throws -> UInt
    func giveBack(_ address: UInt, byteCount: Int)
    func copy(_ byteCount: Int, from source: UInt, to target: UInt) throws
    /// To and from the process's memory.
    func read(_ bytes: UnsafeMutableRawBufferPointer, from address: UInt) throws
    func write(_ bytes: UnsafeRawBufferPointer, to address: UInt) throws
}

/// One block's memory, shared by all sequences whose first positions are the same: it lives as long as one of them holds it.
///
/// Its owner, the sequence that it was made for, may go on writing behind the positions that others see.
package final class KVBlock: Sendable {
    /// A pointer, or a device's address.
    package let address: UInt
    package let byteCount: Int
    private let store: any KVBlockStore
    /// The sequence's number.
    private let owner: Int
    /// Positions that others may see: they don't change while others hold the block.
    private let shown = Atomic<Int>(0)

    fileprivate init(_ byteCount: Int, owner: Int, in store: any KVBlockStore) throws {
        self.owner = owner
        address = try store.take(byteCount)
        self.byteCount = byteCount
        self.store = store
    }

    /// The block's first `count` positions are somebody else's from now on, too.
    func show(_ count: Int) { shown.max(count, ordering: .relaxed) }

    /// Whether the sequence may write from this position of the block on, although others hold it.
    func isWritable(from position: Int, by sequence: Int) -> Bool {
        owner == sequence && position >= shown.load(ordering: .relaxed)
    }

    deinit { store.giveBack(address, byteCount: byteCount) }
}

extension KVBlockStore {
    func makeBlock(_ byteCount: Int, owner: Int) throws -> KVBlock { try KVBlock(byteCount, owner: owner, in: self) }
}
