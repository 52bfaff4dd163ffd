extension Session {
    /// Type of the keys and values that the session has: a restored conversation keeps the one it was saved with.
    package var cachedKVType: KVType { state.withLock { $0.timeline?.sequence.kvType } ?? kvType }
    /// Type that a new conversation gets.
    package var newKVType: KVType { kvType }
}
