/// Memory for `count` elements, page-aligned, kept until it has to grow.
struct CPUBuffer<Element: BitwiseCopyable>: @unchecked Sendable {
    private(set) var base: UnsafeMutablePointer<Element>
    private(set) var capacity = 0
    private var memory: AnonymousMemory?

    init() { base = UnsafeMutablePointer(bitPattern: 64)! }

    /// - Throws: `SigmaError(.unavailable)` if memory ends.
    mutating func reserve(_ count: Int) throws {
        guard count > capacity else { return }
        release()
        let (bytes, overflows) = count.multipliedReportingOverflow(by: MemoryLayout<Element>.stride)
        guard !overflows, let memory = try? AnonymousMemory(byteCount: bytes, hugePages: true) else {
            throw SigmaError(
                .unavailable, "no memory for \(count) activations",
                remedy: "Close other programs, or use fewer sequences at once.")
        }
        self.memory = memory
        base = memory.base.bindMemory(to: Element.self, capacity: count)
        capacity = count
    }

    mutating func release() {
        memory?.free()
        memory = nil
        capacity = 0
    }

    /// Whole pages.
    static func byteCount(_ count: Int) -> Int { (count * MemoryLayout<Element>.stride + 4095) & ~4095 }
}

/// What a step's activations depend on.
struct StepShape: Equatable {
    var rows: Int
    /// Of rows that are split over positions: softmax states, and merges of them.
    var splitStates = 0
    var merges = 0
    /// Rows of the step that is suspended meanwhile.
    var suspendedRows = 0

    /// With room for a step that is suspended: it goes on with the same buffers.
    func keeping(_ suspended: StepShape?) -> StepShape {
        guard let suspended else { return self }
        return StepShape(
            rows: max(rows, suspended.rows), splitStates: max(splitStates, suspended.splitStates),
            merges: max(merges, suspended.merges), suspendedRows: suspended.rows)
    }
}

/// A part's buffers, listed once: the list serves to take their memory, to count it and to give it back.
protocol CPUBuffers {
    /// Calls the visitor with each buffer and the elements that a step of this shape needs.
    mutating func visit(_ shape: StepShape, _ visitor: inout some BufferVisitor) throws
}

protocol BufferVisitor {
    mutating func visit<Element>(_ buffer: inout CPUBuffer<Element>, _ count: Int) throws
}

/// Takes the memory that a step needs.
struct BufferReserver: BufferVisitor {
    /// Buffers that were visited. The thread sanitizer takes values without size, whose addresses are all the same, for one that threads share.
    private(set) var count = 0

    mutating func visit<Element>(_ buffer: inout CPUBuffer<Element>, _ count: Int) throws {
        self.count += 1
        try buffer.reserve(count)
    }
}

/// Adds up bytes: what a step needs, what is held, and what will be held once the step's memory was taken.
struct BufferCounter: BufferVisitor {
    var needed = 0
    var held = 0
    var kept = 0

    mutating func visit<Element>(_ buffer: inout CPUBuffer<Element>, _ count: Int) {
        needed += CPUBuffer<Element>.byteCount(count)
        held += CPUBuffer<Element>.byteCount(buffer.capacity)
        kept += CPUBuffer<Element>.byteCount(max(count, buffer.capacity))
    }
}

struct BufferReleaser: BufferVisitor {
    /// As in `BufferReserver`.
    private(set) var count = 0

    mutating func visit<Element>(_ buffer: inout CPUBuffer<Element>, _ count: Int) {
        self.count += 1
        buffer.release()
    }
}
