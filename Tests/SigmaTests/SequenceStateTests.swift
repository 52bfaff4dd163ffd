import Sigma
import Testing

/// Sequences that share blocks, driven through random orders of operations on a store in memory, beside arrays that say what each
/// must hold.
@Suite struct SequenceStateTests {
    @Test(arguments: 1...6) func sequencesNeverSeeEachOther(seed: UInt64) throws {
        try walk(seed: seed, failures: false)
    }

    @Test(arguments: 1...6) func memoryThatEndsLeavesASequenceAsItWas(seed: UInt64) throws {
        try walk(seed: seed, failures: true)
    }

    private func walk(seed: UInt64, failures: Bool) throws {
        let store = MemoryBlockStore()
        var walk = Walk(store, seed: seed, failures: failures)
        for step in 0..<1500 {
            walk.step()
            if let failure = walk.failure {
                Issue.record("step \(step) of seed \(seed), \(walk.operation): \(failure)")
                break
            }
        }
        #expect(walk.copies > 20 && (walk.failureCount > 40) == failures)
        walk.dropAll()
        #expect(store.live.isEmpty, "blocks outlive the last that held them")
        #expect(store.misuse == nil)
    }

    /// Whoever shows its beginning goes on behind it in the same block; who begins with it copies before it writes.
    @Test func theOwnerOfABlockCopiesNothing() throws {
        let store = MemoryBlockStore()
        let size = Walk.layout.byteCount
        let owner = SequenceState(layout: Walk.layout, store: store)
        try owner.reserve(200)
        owner.advance(by: 200)
        let prefix = owner.prefix(200)
        #expect(owner.growth(to: 201) == 0)
        try owner.reserve(201)
        owner.advance(by: 1)
        #expect(store.takenBytes == size)

        let other = SequenceState(layout: Walk.layout, store: store)
        other.begin(with: prefix)
        #expect(other.growth(to: 201) == size)
        try other.reserve(201)
        #expect(store.takenBytes == 2 * size && other.addresses[0] != owner.addresses[0])
        // What others see is not written over, neither before nor after it has been shown further on.
        owner.truncate(to: 150)
        #expect(owner.growth(to: 151) == size)
        owner.begin(with: prefix)
        #expect(owner.growth(to: 201) == 0)
        try owner.reserve(210)
        owner.advance(by: 10)
        let longer = owner.prefix(210)
        owner.begin(with: prefix)
        #expect(owner.growth(to: 201) == size && longer.length == 210)
    }

    /// A sequence, and what it must hold: a number for each position.
    private struct Subject {
        var sequence: SequenceState
        var stamps: [UInt16] = []
    }

    private struct Shared {
        var prefix: SequenceState.Prefix
        var stamps: [UInt16]
        var addresses: [UInt]
    }

    private struct Stored {
        var blocks: [[UInt8]]
        var stamps: [UInt16]
    }

    private struct Walk {
        /// Small blocks with two components of 2 bytes: keys in rows, values in columns.
        static let layout = KVBlockLayout(
            type: .f16,
            tile: KVTileLayout(
                name: "test", byteCount: 64, elementBytes: 2, width: 2,
                offset: { isValue, position, component in
                    isValue ? (component * 16 + position) * 2 : (position * 2 + component) * 2
                }, scaleOffset: nil),
            layerCount: 2, kvHeadCount: 1)
        /// Byte offsets of all elements of each position in a block.
        static let offsets: [[Int]] = (0..<KVBlockLayout.length).map { position in
            (0..<layout.layerCount).flatMap { layer in
                [false, true].flatMap { isValue in
                    (0..<2).map { component in
                        layout.headOffset(layer: layer, isValue: isValue, head: 0) + position / 16 * 64
                            + layout.tile.offset(isValue, position % 16, component)
                    }
                }
            }
        }

        let store: MemoryBlockStore
        let failures: Bool
        var random: SplitMix64
        var subjects: [Subject] = []
        var prefixes: [Shared] = []
        var files: [Stored] = []
        var nextStamp: UInt16 = 1
        var operation = ""
        var failure: String?
        var failureCount = 0
        /// Blocks that were copied because others held them, too.
        var copies = 0

        init(_ store: MemoryBlockStore, seed: UInt64, failures: Bool) {
            self.store = store
            self.failures = failures
            random = SplitMix64(state: seed)
        }

        mutating func number(below limit: Int) -> Int { Int(random.next() % UInt64(max(1, limit))) }

        /// A length near block boundaries as often as anywhere.
        mutating func length(upTo limit: Int) -> Int {
            let near = 256 * number(below: 4) + number(below: 5) - 2
            return min(limit, max(0, number(below: 2) == 0 ? near : number(below: 800)))
        }

        mutating func require(_ condition: Bool, _ message: @autoclosure () -> String) {
            if !condition, failure == nil { failure = message() }
        }

        mutating func step() {
            if subjects.count < 2 {
                subjects.append(Subject(sequence: SequenceState(layout: Self.layout, store: store)))
            }
            let index = number(below: subjects.count)
            switch number(below: 16) {
            case 0...5: write(index)
            case 6...7: truncate(index)
            case 8: _ = reserve(index, subjects[index].sequence.length + length(upTo: 800))
            case 9:
                operation = "release"
                subjects[index].sequence.releaseSpare()
                let sequence = subjects[index].sequence
                require(sequence.blockCount == KVBlockLayout.count(sequence.length), "spare blocks were kept")
            case 10...11: share(index)
            case 12: begin(index)
            case 13: save(index)
            case 14: restore(index)
            default: drop(index)
            }
            check()
        }

        mutating func dropAll() {
            subjects = []
            prefixes = []
        }

        // MARK: Operations

        /// Calls `body`, with a store that may fail in it.
        mutating func attempt(_ body: () throws -> Void) -> Bool {
            if failures, number(below: 3) == 0 { store.fail(after: number(below: 4)) }
            defer { store.fail(after: nil) }
            do {
                try body()
                return true
            } catch {
                failureCount += 1
                require(failures, "\(error)")
                return false
            }
        }

        /// - Returns: whether there is room.
        mutating func reserve(_ index: Int, _ positions: Int) -> Bool {
            operation = "reserve \(positions) of \(index)"
            let sequence = subjects[index].sequence
            let (growth, before, blocks) = (sequence.growth(to: positions), store.takenBytes, sequence.blockCount)
            let succeeded = attempt { try sequence.reserve(positions) }
            let taken = store.takenBytes - before
            if succeeded {
                require(taken == growth, "\(taken) bytes were taken, and \(growth) foretold")
                require(sequence.growth(to: positions) == 0, "there is no room after all")
                copies += taken / Self.layout.byteCount - (sequence.blockCount - blocks)
            } else {
                require(taken <= growth, "\(taken) bytes were taken of \(growth) foretold")
            }
            return succeeded
        }

        mutating func write(_ index: Int) {
            let count = 1 + number(below: number(below: 3) == 0 ? 300 : 4)
            let sequence = subjects[index].sequence
            guard sequence.length + count <= 1000, reserve(index, sequence.length + count) else { return }
            // Drafts are written, too, and not all of them are kept.
            let kept = number(below: 4) == 0 ? number(below: count + 1) : count
            operation = "write \(count) and keep \(kept) of \(index)"
            for place in 0..<count {
                put(nextStamp, sequence, sequence.length + place)
                if place < kept { subjects[index].stamps.append(nextStamp) }
                nextStamp &+= 1
            }
            sequence.advance(by: kept)
        }

        mutating func truncate(_ index: Int) {
            let sequence = subjects[index].sequence
            let length = length(upTo: sequence.length + 10)
            operation = "truncate \(index) to \(length)"
            sequence.truncate(to: length)
            subjects[index].stamps.removeLast(max(0, subjects[index].stamps.count - length))
        }

        mutating func share(_ index: Int) {
            let sequence = subjects[index].sequence
            let count = length(upTo: sequence.length)
            operation = "prefix \(count) of \(index)"
            let prefix = sequence.prefix(count)
            let addresses = (0..<KVBlockLayout.count(count)).map { sequence.addresses[$0] }
            require(prefix.byteCount == addresses.count * Self.layout.byteCount, "the prefix has another size")
            prefixes.append(
                Shared(prefix: prefix, stamps: Array(subjects[index].stamps[..<count]), addresses: addresses))
            if prefixes.count > 4 { prefixes.remove(at: number(below: 5)) }
        }

        mutating func begin(_ index: Int) {
            guard !prefixes.isEmpty else { return }
            let shared = prefixes[number(below: prefixes.count)]
            operation = "begin \(index) with \(shared.prefix.length)"
            let before = store.takenBytes
            subjects[index].sequence.begin(with: shared.prefix)
            subjects[index].stamps = shared.stamps
            require(store.takenBytes == before, "memory was taken before it is needed")
        }

        mutating func save(_ index: Int) {
            operation = "save \(index)"
            let subject = subjects[index]
            var blocks: [[UInt8]] = []
            let succeeded = attempt { try subject.sequence.forEachStoredBlock { blocks.append(Array($0)) } }
            guard succeeded else { return }
            let sizes = subject.sequence.storedBlockSizes(length: subject.sequence.length)
            require(blocks.map(\.count) == sizes, "stored blocks have other sizes than was said")
            files.append(Stored(blocks: blocks, stamps: subject.stamps))
            if files.count > 3 { files.removeFirst() }
        }

        mutating func restore(_ index: Int) {
            guard !files.isEmpty else { return }
            let file = files[number(below: files.count)]
            operation = "restore \(file.stamps.count) to \(index)"
            let sequence = subjects[index].sequence
            var next = 0
            let succeeded = attempt {
                try sequence.restore(length: file.stamps.count) { block in
                    block.copyBytes(from: file.blocks[next])
                    next += 1
                }
            }
            subjects[index].stamps = succeeded ? file.stamps : []
        }

        mutating func drop(_ index: Int) {
            operation = "drop \(index)"
            subjects.remove(at: index)
            while subjects.count < 2 + number(below: 3) {
                subjects.append(Subject(sequence: SequenceState(layout: Self.layout, store: store)))
            }
        }

        // MARK: Contents

        func put(_ stamp: UInt16, _ sequence: SequenceState, _ position: Int) {
            let block = UnsafeMutableRawPointer(bitPattern: sequence.addresses[position / 256])!
            for (index, offset) in Self.offsets[position % 256].enumerated() {
                block.storeBytes(of: stamp &+ UInt16(index) &* 257, toByteOffset: offset, as: UInt16.self)
            }
        }

        mutating func check() {
            var held: Set<UInt> = []
            for (index, subject) in subjects.enumerated() {
                let sequence = subject.sequence
                require(sequence.length == subject.stamps.count, "\(index) has \(sequence.length) positions")
                require(sequence.blockCount >= KVBlockLayout.count(sequence.length), "\(index) has too few blocks")
                require(sequence.byteCount == sequence.blockCount * Self.layout.byteCount, "another size")
                for block in 0..<sequence.blockCount { held.insert(sequence.addresses[block]) }
                if failure == nil { check(index, subject) }
            }
            for shared in prefixes { held.formUnion(shared.addresses) }
            let live = Set(store.live.keys)
            require(
                live.isSubset(of: held), "\(live.subtracting(held).count) blocks that nobody holds were not given back")
            require(
                held.isSubset(of: live), "\(held.subtracting(live).count) blocks were given back that somebody holds")
        }

        private mutating func check(_ number: Int, _ subject: Subject) {
            subject.stamps.withUnsafeBufferPointer { stamps in
                for position in 0..<stamps.count {
                    let block = UnsafeRawPointer(bitPattern: subject.sequence.addresses[position / 256])!
                    let offsets = Self.offsets[position % 256]
                    // An element of each kind in turn: all of them are written together.
                    let index = position & 7
                    let found = block.load(fromByteOffset: offsets[index], as: UInt16.self)
                    if found != stamps[position] &+ UInt16(index) &* 257 {
                        if failure == nil { failure = "position \(position) of \(number) has changed" }
                        return
                    }
                }
            }
        }
    }
}
