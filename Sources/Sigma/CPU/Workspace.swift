import CSigma

/// Activations of a step. Row-major fp32 unless stated; grows when a step begins, never during one. Slots: see `FeedForwardPlan`.
struct Workspace {
    /// Memory for `count` elements, page-aligned, kept until it has to grow.
    struct Buffer<Element: BitwiseCopyable>: @unchecked Sendable {
        private(set) var base: UnsafeMutablePointer<Element>
        private(set) var capacity = 0
        private var memory: AnonymousMemory?
        /// Only counts what would be reserved.
        fileprivate var isPlanned = false

        init() { base = UnsafeMutablePointer(bitPattern: 64)! }

        /// - Throws: `SigmaError(.unavailable)` if memory ends.
        mutating func reserve(_ count: Int) throws {
            guard count > capacity else { return }
            release()
            let (bytes, overflows) = count.multipliedReportingOverflow(by: MemoryLayout<Element>.stride)
            if !isPlanned {
                guard !overflows, let memory = try? AnonymousMemory(byteCount: bytes, hugePages: true) else {
                    throw SigmaError(
                        .unavailable, "no memory for \(count) activations",
                        remedy: "Close other programs, or use fewer sequences at once.")
                }
                self.memory = memory
                base = memory.base.bindMemory(to: Element.self, capacity: count)
            }
            capacity = count
        }

        mutating func release() {
            memory?.free()
            memory = nil
            capacity = 0
        }

        /// Whole pages.
        var byteCount: Int { (capacity * MemoryLayout<Element>.stride + 4095) & ~4095 }
    }

    /// - Parameter isPlanned: buffers take no memory, and only count it.
    init(isPlanned: Bool = false) {
        for path in Self.floats { self[keyPath: path].isPlanned = isPlanned }
        for path in Self.integers { self[keyPath: path].isPlanned = isPlanned }
        for path in Self.blocks { self[keyPath: path].isPlanned = isPlanned }
        groups.isPlanned = isPlanned
    }

    var byteCount: Int {
        Self.floats.reduce(groups.byteCount) { $0 + self[keyPath: $1].byteCount }
            + Self.integers.reduce(0) { $0 + self[keyPath: $1].byteCount }
            + Self.blocks.reduce(0) { $0 + self[keyPath: $1].byteCount }
    }

    /// [rows, hidden]: the residual stream.
    var residual = Buffer<Float>()
    /// [rows, hidden]: after the norm; input of attention, feed-forward or head. With very few rows: of each member.
    var normed = Buffer<Float>()
    /// [rows, hidden / 32]: the same in 8 bits.
    var normedQuantized = Buffer<sigma_activation_block>()
    /// [rows, headDim / 2] of each row's position.
    var cosines = Buffer<Float>()
    var sines = Buffer<Float>()
    /// [rows, queryWidth + 2 kvWidth]: q, k and v side by side.
    var projections = Buffer<Float>()
    /// [rows, headCount, padded headDim]: after norm, RoPE and scaling.
    var queries = Buffer<Float>()
    /// [rows, queryWidth]: heads side by side, input of the output projection.
    var attended = Buffer<Float>()
    var attendedQuantized = Buffer<sigma_activation_block>()
    /// Softmax states of splits: per item and query of its group a maximum and a sum; and [padded headDim] outputs.
    var splitStates = Buffer<Float>()
    var splitOutputs = Buffer<Float>()
    /// What members have done of the layer's attention: of each key-value head its tiles of q, k and v, then 1 when it can be attended, then
    /// of each merge the splits.
    var progress = Buffer<Int32>()

    /// [rows, experts]
    var routerLogits = Buffer<Float>()
    /// What `FeedForwardPlan` is made of, for the rows in common or for each member.
    var scores = Buffer<Float>()
    var chosen = Buffer<Int32>()
    var weights = Buffer<Float>()
    var slots = Buffer<Int32>()
    var slotRows = Buffer<Int32>()
    var offsets = Buffer<Int32>()
    var groups = Buffer<FeedForwardPlan.Group>()
    /// [slots, intermediate]: silu(gate) * up.
    var gated = Buffer<Float>()
    var gatedQuantized = Buffer<sigma_activation_block>()
    /// [slots, hidden]: down's output.
    var expertOutputs = Buffer<Float>()
    /// [rows, hidden]: weighted sum of the experts' outputs.
    var feedForward = Buffer<Float>()

    /// [rows asked for at once, vocabulary]
    var logits = Buffer<Float>()

    /// Scratch of the team's members, side by side.
    var scratch = Buffer<Float>()

    mutating func release() {
        for path in Self.floats { self[keyPath: path].release() }
        for path in Self.integers { self[keyPath: path].release() }
        for path in Self.blocks { self[keyPath: path].release() }
        groups.release()
    }

    // Every buffer but `groups` is in one of these lists.
    private static var floats: [WritableKeyPath<Workspace, Buffer<Float>>] {
        [
            \.residual, \.normed, \.cosines, \.sines, \.projections, \.queries, \.attended, \.splitStates,
            \.splitOutputs, \.scores, \.routerLogits, \.weights, \.gated, \.expertOutputs, \.feedForward, \.logits,
            \.scratch,
        ]
    }
    private static var integers: [WritableKeyPath<Workspace, Buffer<Int32>>] {
        [\.chosen, \.slots, \.slotRows, \.offsets, \.progress]
    }
    private static var blocks: [WritableKeyPath<Workspace, Buffer<sigma_activation_block>>] {
        [\.normedQuantized, \.attendedQuantized, \.gatedQuantized]
    }
}
