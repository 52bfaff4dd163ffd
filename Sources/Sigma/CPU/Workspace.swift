import CSigma

#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Activations of a step. Row-major fp32 unless stated; grows when a step begins, never during one. Slots: see `FeedForwardPlan`.
struct Workspace {
    /// Memory for `count` elements, 64-byte aligned, kept until it has to grow.
    struct Buffer<Element: BitwiseCopyable>: @unchecked Sendable {
        private(set) var base: UnsafeMutablePointer<Element>
        private(set) var capacity = 0

        init() { base = UnsafeMutablePointer(bitPattern: 64)! }

        /// - Throws: `SigmaError(.unavailable)` if memory ends.
        mutating func reserve(_ count: Int) throws {
            guard count > capacity else { return }
            release()
            let (bytes, overflows) = count.multipliedReportingOverflow(by: MemoryLayout<Element>.stride)
            var memory: UnsafeMutableRawPointer?
            guard !overflows, posix_memalign(&memory, 64, bytes) == 0, let memory else {
                throw SigmaError(
                    .unavailable, "no memory for \(count) activations",
                    remedy: "Close other programs, or use fewer sequences at once.")
            }
            base = memory.bindMemory(to: Element.self, capacity: count)
            capacity = count
        }

        mutating func release() {
            if capacity > 0 { free(base) }
            capacity = 0
        }
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
        for keyPath in [
            \Workspace.residual, \.normed, \.cosines, \.sines, \.projections, \.queries, \.attended, \.splitStates,
            \.splitOutputs, \.scores, \.routerLogits, \.weights, \.gated, \.expertOutputs, \.feedForward, \.logits,
            \.scratch,
        ] { self[keyPath: keyPath].release() }
        for keyPath in [\Workspace.chosen, \.slots, \.slotRows, \.offsets, \.progress] {
            self[keyPath: keyPath].release()
        }
        for keyPath in [\Workspace.normedQuantized, \.attendedQuantized, \.gatedQuantized] {
            self[keyPath: keyPath].release()
        }
        groups.release()
    }
}
