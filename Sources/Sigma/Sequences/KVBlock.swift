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
package final class KVBlock: Sendable {
    /// A pointer, or a device's address.
    package let address: UInt
    package let byteCount: Int
    private let store: any KVBlockStore

    fileprivate init(_ byteCount: Int, in store: any KVBlockStore) throws {
        address = try store.take(byteCount)
        self.byteCount = byteCount
        self.store = store
    }

    deinit { store.giveBack(address, byteCount: byteCount) }
}

extension KVBlockStore {
    package func makeBlock(_ byteCount: Int) throws -> KVBlock { try KVBlock(byteCount, in: self) }
}
