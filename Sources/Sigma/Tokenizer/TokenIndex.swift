/// Token bytes -> id: an open-addressing table over one copy of all bytes.
///
/// The hash is polynomial, so that the hash of any slice of a text comes from two prefix hashes, and that of a pair from its
/// halves: merging asks for thousands of overlapping slices.
package final class TokenIndex: @unchecked Sendable {
    package static let longestToken = 65_535
    package static let mostTokens = 1 << 24

    let view: View

    /// Indexes the tokens that `isIncluded`; empty ones never are. Among equal tokens the lowest id is found.
    ///
    /// - Throws: `.damaged` for a token longer than `longestToken` or more than `mostTokens` ids.
    package init(_ table: TokenTable, where isIncluded: (Int) -> Bool = { _ in true }) throws(SigmaError) {
        let count = table.count
        guard count <= Self.mostTokens else {
            throw SigmaError(.damaged, "the vocabulary has \(count) ids; at most \(Self.mostTokens) are supported")
        }
        guard table.bytes.count <= Int(UInt32.max) else {
            throw SigmaError(.damaged, "the vocabulary has \(table.bytes.count) bytes; at most 4 GiB are supported")
        }
        let offsets = UnsafeMutablePointer<UInt32>.allocate(capacity: count + 1)
        let bytes = UnsafeMutablePointer<UInt8>.allocate(capacity: max(table.bytes.count, 1))
        let hashes = UnsafeMutablePointer<UInt64>.allocate(capacity: max(count, 1))
        var included = 0
        var longest = 0
        var tooLong: Int?
        table.bytes.withUnsafeBufferPointer { source in
            if let base = source.baseAddress { bytes.initialize(from: base, count: source.count) }
        }
        table.offsets.withUnsafeBufferPointer { source in
            offsets[0] = 0
            for id in 0..<count {
                let start = source[id]
                let length = source[id + 1] - start
                if length > Self.longestToken, tooLong == nil { tooLong = id }
                offsets[id + 1] = UInt32(truncatingIfNeeded: source[id + 1])
                hashes[id] = Hash.of(bytes + start, length)
                if length > 0, isIncluded(id) {
                    included += 1
                    longest = max(longest, length)
                }
            }
        }
        let bits = max(4, Int.bitWidth - (included * 2).leadingZeroBitCount)
        let slots = UnsafeMutablePointer<Slot>.allocate(capacity: 1 << bits)
        slots.initialize(repeating: Slot(tag: 0, id: -1), count: 1 << bits)
        let powers = UnsafeMutablePointer<UInt64>.allocate(capacity: Self.longestToken + 1)
        var power: UInt64 = 1
        for exponent in 0...longest {
            if exponent <= Self.longestToken { powers[exponent] = power }
            power = power &* Hash.base
        }
        view = View(
            bytes: bytes, offsets: offsets, hashes: hashes, powers: powers, slots: slots, mask: 1 << bits - 1,
            count: count, longest: longest)
        if let tooLong {
            throw SigmaError(.damaged, "token \(tooLong) is longer than \(Self.longestToken) bytes")
        }
        for id in 0..<count where isIncluded(id) && view.length(id) > 0 {
            guard view.find(view.bytes(id), view.length(id), view.hashes[id]) < 0 else { continue }
            let mixed = Hash.mix(hashes[id])
            var slot = View.firstSlot(mixed) & view.mask
            while slots[slot].id >= 0 { slot = (slot + 1) & view.mask }
            slots[slot] = Slot(tag: UInt32(truncatingIfNeeded: mixed), id: Int32(id))
        }
    }

    deinit {
        view.bytes.deallocate()
        view.offsets.deallocate()
        view.hashes.deallocate()
        view.powers.deallocate()
        view.slots.deallocate()
    }

    /// The id of the token with exactly these bytes.
    package func id(of token: UnsafeBufferPointer<UInt8>) -> Int32? {
        guard let base = token.baseAddress, token.count <= view.longest else { return nil }
        let id = view.find(base, token.count, Hash.of(base, token.count))
        return id < 0 ? nil : id
    }

    /// The bytes of a token; empty where there is none. Valid as long as the index.
    func bytes(of id: Int32) -> UnsafeBufferPointer<UInt8> {
        guard id >= 0, Int(id) < view.count else { return UnsafeBufferPointer(start: nil, count: 0) }
        return UnsafeBufferPointer(start: view.bytes(Int(id)), count: view.length(Int(id)))
    }

    struct Slot {
        var tag: UInt32
        var id: Int32
    }

    enum Hash {
        static let base: UInt64 = 0x9e37_79b9_7f4a_7c15

        @inline(__always)
        static func append(_ byte: UInt8, to hash: UInt64) -> UInt64 { hash &* base &+ (UInt64(byte) &+ 1) }

        @inline(__always)
        static func of(_ bytes: UnsafePointer<UInt8>, _ count: Int) -> UInt64 {
            var hash: UInt64 = 0
            for i in 0..<count { hash = append(bytes[i], to: hash) }
            return hash
        }

        /// Slot number in the upper half, tag in the lower.
        @inline(__always)
        static func mix(_ hash: UInt64) -> UInt64 {
            let mixed = (hash ^ (hash >> 29)) &* 0xbf58_476d_1ce4_e5b9
            return mixed ^ (mixed >> 32)
        }
    }

    /// The table as plain pointers, for inner loops.
    struct View {
        let bytes: UnsafePointer<UInt8>
        let offsets: UnsafePointer<UInt32>
        /// [count]: each token's hash.
        let hashes: UnsafePointer<UInt64>
        /// [longest + 1]: powers of the hash's base.
        let powers: UnsafePointer<UInt64>
        let slots: UnsafePointer<Slot>
        let mask: Int
        let count: Int
        /// Bytes of the longest included token.
        let longest: Int

        @inline(__always)
        func bytes(_ id: Int) -> UnsafePointer<UInt8> { bytes + Int(offsets[id]) }

        @inline(__always)
        func length(_ id: Int) -> Int { Int(offsets[id + 1] &- offsets[id]) }

        @inline(__always)
        static func firstSlot(_ mixed: UInt64) -> Int { Int(truncatingIfNeeded: mixed >> 32) }

        /// The id of a token; -1 if there is none. `count` is at most `longest`.
        @inline(__always)
        func find(_ token: UnsafePointer<UInt8>, _ count: Int, _ hash: UInt64) -> Int32 {
            let mixed = Hash.mix(hash)
            let tag = UInt32(truncatingIfNeeded: mixed)
            var slot = Self.firstSlot(mixed) & mask
            while true {
                let entry = slots[slot]
                if entry.id < 0 { return -1 }
                if entry.tag == tag, length(Int(entry.id)) == count, equal(bytes(Int(entry.id)), token, count) {
                    return entry.id
                }
                slot = (slot + 1) & mask
            }
        }

        @inline(__always)
        private func equal(_ a: UnsafePointer<UInt8>, _ b: UnsafePointer<UInt8>, _ count: Int) -> Bool {
            for i in 0..<count where a[i] != b[i] { return false }
            return true
        }
    }
}
