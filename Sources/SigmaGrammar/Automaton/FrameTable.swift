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

/// Frames by number, with their transitions by byte: `[states, 256]` of 32 bits, filled as they are needed.
struct FrameTable: ~Copyable {
    private(set) var frames: [Frame] = []
    private var numbers: [Frame: Int32] = [:]
    private(set) var rows: UnsafeMutablePointer<Int32>
    private var capacity: Int
    /// By state: the frame of the values that it expects; -1 unknown.
    var children: [Int32] = []
    /// Keyed by state and set of expectations: the state behind a value.
    var returns: [UInt64: Int32] = [:]
    /// Plain characters that a string's state surely takes; -1 unknown.
    var capacities: [Int32] = []
    private(set) var tagSets: [[UInt16]] = [[]]
    private var tagNumbers: [[UInt16]: Int32] = [[]: 0]

    init() {
        capacity = 64
        rows = .allocate(capacity: capacity * 256)
    }

    deinit { rows.deallocate() }

    var count: Int { frames.count }

    @inline(__always) func transition(_ state: Int32, _ byte: UInt8) -> Int32 { rows[Int(state) << 8 | Int(byte)] }

    @inline(__always) func setTransition(_ state: Int32, _ byte: UInt8, _ code: Int32) {
        rows[Int(state) << 8 | Int(byte)] = code
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
        if frames.count == capacity { grow() }
        (rows + frames.count << 8).initialize(repeating: Transition.unknown, count: 256)
        frames.append(frame)
        children.append(-1)
        capacities.append(-1)
        numbers[frame] = number
        return number
    }

    private mutating func grow() {
        let larger = UnsafeMutablePointer<Int32>.allocate(capacity: capacity * 512)
        larger.moveInitialize(from: rows, count: capacity * 256)
        rows.deallocate()
        rows = larger
        capacity *= 2
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
