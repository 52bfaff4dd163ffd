/// What a byte does in a frame's state.
enum Transition {
    static let dead: Int32 = -1
    static let unknown: Int32 = -2

    // Other negative numbers carry a kind in their two low bits. Numbers from 0 on are the next state.
    static let push: Int32 = 0
    static let popAfter: Int32 = 1
    static let popBefore: Int32 = 2

    @inline(__always) static func encode(_ kind: Int32, _ payload: Int32) -> Int32 { -3 - (payload << 2 | kind) }
    @inline(__always) static func kind(_ code: Int32) -> Int32 { (-3 - code) & 3 }
    @inline(__always) static func payload(_ code: Int32) -> Int32 { (-3 - code) >> 2 }
}

/// A frame's state: the threads of one value that are still possible, and the whitespace before the next token.
struct Frame: Hashable {
    var space: UInt8 = 0
    var threads: [TaggedThread]
}

/// Frames by number, with their transitions by byte: rows of 256 numbers of 32 bits, filled as they are needed. Rows
/// stand in chunks, so that growing copies nothing.
struct FrameTable: ~Copyable {
    private(set) var frames: [Frame] = []
    private var numbers: [Frame: Int32] = [:]
    typealias Chunk = UnsafeMutablePointer<Int32>
    private(set) var chunks: UnsafeMutablePointer<Chunk>
    private var chunkCount = 0
    private var chunkCapacity = 256
    private static let chunkBits: Int32 = 6
    /// By state: the frame of the values that it expects; -1 unknown.
    var children: [Int32] = []
    /// Keyed by state and set of expectations: the state after a value.
    var returns: [UInt64: Int32] = [:]
    /// By state: the slice of the vocabulary that it takes; -1 none.
    var slices: [Int32] = []
    static let unknownSlice: Int32 = -2
    private(set) var tagSets: [[UInt16]] = [[]]
    private var tagNumbers: [[UInt16]: Int32] = [[]: 0]

    init() {
        chunks = .allocate(capacity: chunkCapacity)
    }

    deinit {
        for place in 0..<chunkCount { chunks[place].deallocate() }
        chunks.deallocate()
    }

    var count: Int { frames.count }

    @inline(__always) static func transition(
        _ chunks: UnsafeMutablePointer<Chunk>, _ state: Int32, _ byte: UInt8
    ) -> Int32 {
        chunks[Int(state >> chunkBits)][Int(state & (1 << chunkBits - 1)) << 8 | Int(byte)]
    }

    @inline(__always) func transition(_ state: Int32, _ byte: UInt8) -> Int32 {
        Self.transition(chunks, state, byte)
    }

    @inline(__always) func setTransition(_ state: Int32, _ byte: UInt8, _ code: Int32) {
        chunks[Int(state >> Self.chunkBits)][Int(state & (1 << Self.chunkBits - 1)) << 8 | Int(byte)] = code
    }

    /// The state with these threads, in any order; equal threads become one.
    mutating func number(_ threads: [TaggedThread], space: UInt8 = 0) -> Int32 {
        var sorted = threads
        if sorted.count > 1 {
            sorted.sort { $0.thread < $1.thread }
            var kept = 0
            for index in sorted.indices.dropFirst() {
                if sorted[index].thread == sorted[kept].thread {
                    sorted[kept].tags = union(sorted[kept].tags, sorted[index].tags)
                } else {
                    kept += 1
                    sorted[kept] = sorted[index]
                }
            }
            sorted.removeLast(sorted.count - kept - 1)
        }
        let frame = Frame(space: space, threads: sorted)
        if let known = numbers[frame] { return known }
        let number = Int32(frames.count)
        if frames.count >> Int(Self.chunkBits) == chunkCount { addChunk() }
        frames.append(frame)
        children.append(-1)
        slices.append(Self.unknownSlice)
        numbers[frame] = number
        return number
    }

    private mutating func addChunk() {
        if chunkCount == chunkCapacity {
            let larger = UnsafeMutablePointer<Chunk>.allocate(capacity: chunkCapacity * 2)
            larger.moveInitialize(from: chunks, count: chunkCount)
            chunks.deallocate()
            chunks = larger
            chunkCapacity *= 2
        }
        let chunk = Chunk.allocate(capacity: 256 << Int(Self.chunkBits))
        chunk.initialize(repeating: Transition.unknown, count: 256 << Int(Self.chunkBits))
        (chunks + chunkCount).initialize(to: chunk)
        chunkCount += 1
    }

    // MARK: Where whitespace may stand

    enum Place {
        case behindColon, behindComma, elsewhere
    }

    /// Whether the state comes directly after a colon or a comma.
    func place(of state: Int32) -> Place {
        let frame = frames[Int(state)]
        if frame.space != 0 { return .elsewhere }
        switch frame.threads[0].thread.kind {
        case .memberValue: return .behindColon
        case .keyStart, .itemStart: return .behindComma
        default: return .elsewhere
        }
    }

    /// Whether the state stands between tokens of an object or array, where whitespace means nothing.
    func isStructure(_ state: Int32) -> Bool {
        switch frames[Int(state)].threads[0].thread.kind {
        case .objectOpen, .keyStart, .memberValue, .memberEnd, .objectClosing, .arrayOpen, .itemStart, .itemEnd,
            .arrayClosing, .number:
            true
        default: false
        }
    }

    // MARK: Sets of expectations

    mutating func tags(_ members: [UInt16]) -> Int32 {
        if let known = tagNumbers[members] { return known }
        let number = Int32(tagSets.count)
        tagSets.append(members)
        tagNumbers[members] = number
        return number
    }

    mutating func union(_ a: Int32, _ b: Int32) -> Int32 {
        if a == b { return a }
        return tags(Array(Set(tagSets[Int(a)]).union(tagSets[Int(b)])).sorted())
    }
}
