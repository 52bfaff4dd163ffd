/// Element type of the key-value cache.
public enum KVType: String, Sendable, CaseIterable {
    /// 16 bit: the default.
    case f16
    /// 8 bit with a scale per 32 values; needs a head_dim that is a multiple of 32.
    case q8_0
    /// 32 bit: for checking numbers.
    case f32
}

/// The key-value state of one sequence, owned by the back end that made it.
///
/// Exclusive: used by one step at a time.
package protocol SequenceState: AnyObject, Sendable {
    var kvType: KVType { get }
    /// Tokens whose keys and values are stored, bytes held.
    var length: Int { get }
    var byteCount: Int { get }
    /// Forgets everything from position `length` on. Memory is kept for what comes next.
    func truncate(to length: Int)

    /// Name of the layout in which `forEachStoredBlock` gives keys and values. Who restores must know it.
    var storedLayout: String { get }
    /// Sizes in bytes of the blocks that `length` positions are stored in.
    func storedBlockSizes(length: Int) -> [Int]
    /// Calls `body` with each block's bytes, valid during the call: all that is needed to go on, and nothing of forgotten positions.
    func forEachStoredBlock(_ body: (_ bytes: UnsafeRawBufferPointer) throws -> Void) throws
    /// Takes the place of whatever is held: `length` positions in blocks that `fill` writes, in the order of `storedBlockSizes`.
    /// - Throws: `SigmaError(.unavailable)` if memory ends; what `fill` throws. The sequence is then empty.
    func restore(length: Int, _ fill: (_ block: UnsafeMutableRawBufferPointer) throws -> Void) throws
}

/// The rows of one step: each row is one token of one sequence at one position.
///
/// Reused from step to step, so that a step allocates nothing.
package final class Batch {
    /// Successive tokens of one sequence.
    package struct Segment {
        package let sequence: any SequenceState
        package let firstRow: Int
        package let count: Int
        /// Position of the first token: the sequence's length before the step.
        package let position: Int
    }

    package private(set) var tokens: [Int32] = []
    package private(set) var segments: [Segment] = []
    /// Where the step's routing goes; nil: nobody asks.
    package var routing: RoutingRecord?

    package init() {}

    package func removeAll() {
        tokens.removeAll(keepingCapacity: true)
        segments.removeAll(keepingCapacity: true)
    }

    /// Appends tokens to follow what `sequence` holds. A sequence appears at most once in a batch.
    package func append(_ newTokens: ArraySlice<Int32>, to sequence: any SequenceState) {
        segments.append(
            Segment(sequence: sequence, firstRow: tokens.count, count: newTokens.count, position: sequence.length))
        tokens.append(contentsOf: newTokens)
    }
}

/// What computes: a small table of transformer-level operations on a residual stream that the back end owns.
///
/// A step is `begin`, `embed`, every layer's `attend` and `feedForward`, `head` as often as wanted, and `end`; `ForwardPass` is the only
/// caller. One thread calls; a back end runs one step at a time.
package protocol Backend: AnyObject, Sendable {
    var name: String { get }
    /// The largest number of rows that the next step should have.
    var rowLimit: Int { get }
    /// The same where other sequences wait for the step's end.
    var sharedRowLimit: Int { get }
    /// The largest number of rows that `head` takes at once.
    var headRowLimit: Int { get }
    /// Whether a row's results are the same bytes whatever rows are beside it.
    var rowsAreIndependent: Bool { get }

    /// - Throws: `SigmaError(.unavailable)` if the model or the back end cannot have this type.
    func makeSequence(kvType: KVType) throws -> any SequenceState

    /// Positions that a sequence of this type, alone, can have in the memory that the back end may use; nil: as many as the model states.
    func positionLimit(kvType: KVType) -> Int?
    /// Whether the memory that the back end may use has room for `count` more tokens of a sequence.
    func hasRoom(for count: Int, in sequence: any SequenceState) -> Bool
    /// Makes room for the batch's rows, keys and values.
    /// - Throws: `SigmaError(.unavailable)` if memory ends.
    func begin(_ batch: Batch) throws
    /// residual [rows, hidden] = embedding rows of the tokens.
    func embed()
    /// residual += attention(rmsnorm(residual)), paper section 2.1; keys and values go into the sequences.
    func attend(layer: Int)
    /// residual += moe(rmsnorm(residual)), or the dense MLP: routing, choice and experts in one.
    /// - Throws: `SigmaError`: `.inputOutput` if an expert cannot be read, `.damaged` if one is not what it was; the sequences are unchanged.
    func feedForward(layer: Int) throws
    /// What the router of the layer computed last gave; nil for a dense layer.
    func layerRouting() -> LayerRouting?
    /// Logits [rows, vocabulary] of at most `headRowLimit` rows (final norm and output head), valid until the next call.
    func head(rows: Range<Int>) -> UnsafeBufferPointer<Float>
    /// Calls `body` with the `count` largest logits of each row, valid during the call: those that `LargestLogits` selects of what `head`
    /// gives, fewer if there are not so many. What a back end has of its own for this brings less of the head or of its result to the host.
    func forEachRow(
        of rows: Range<Int>, largest count: Int, allowed: [Bool],
        _ body: (_ row: Int, _ largest: UnsafeBufferPointer<TokenLogit>) -> Void)
    /// Calls `body` with the logits [vocabulary] of each row, as `head` gives them, valid during the call. A back end that finds the largest
    /// ones in another way compares its `count` largest with these, and counts in `headStatistics` where they differ.
    func forEachRow(
        of rows: Range<Int>, comparing count: Int, allowed: [Bool],
        _ body: (_ row: Int, _ logits: UnsafeBufferPointer<Float>) -> Void)
    /// How logits came about since the back end was made.
    var headStatistics: HeadStatistics { get }
    /// What experts cost since the back end was made.
    var expertStatistics: ExpertStatistics { get }
    /// Bytes of weights and cache that the current or last step read.
    var stepBytes: Int { get }
    /// Makes the step's tokens part of their sequences.
    /// - Throws: `SigmaError(.inputOutput)` if the weights were lost while they were read; the sequences are then unchanged.
    func end() throws
}

extension Backend {
    package var sharedRowLimit: Int { rowLimit }

    /// Calls `body` with the logits [vocabulary] of each row, valid during the call; as many rows at a time as `head` takes.
    package func forEachRow(
        of rows: Range<Int>, _ body: (_ row: Int, _ logits: UnsafeBufferPointer<Float>) throws -> Void
    ) rethrows {
        for first in stride(from: rows.lowerBound, to: rows.upperBound, by: headRowLimit) {
            let part = first..<min(first + headRowLimit, rows.upperBound)
            let logits = head(rows: part)
            for row in part { try body(row, logits.row(row - first, of: part.count)) }
        }
    }

    /// The largest logits of each row, found among all of them on the host: for back ends without a better way, and where theirs does not reach.
    package func forEachRowFromAll(
        of rows: Range<Int>, largest count: Int, allowed: [Bool],
        _ body: (_ row: Int, _ largest: UnsafeBufferPointer<TokenLogit>) -> Void
    ) {
        var largest = LargestLogits()
        forEachRow(of: rows) { row, logits in
            largest.select(count, of: logits, allowed: allowed)
            largest.list.withUnsafeBufferPointer { body(row, $0) }
        }
    }

    package func forEachRow(
        of rows: Range<Int>, largest count: Int, allowed: [Bool],
        _ body: (_ row: Int, _ largest: UnsafeBufferPointer<TokenLogit>) -> Void
    ) {
        forEachRowFromAll(of: rows, largest: count, allowed: allowed, body)
    }

    package func forEachRow(
        of rows: Range<Int>, comparing count: Int, allowed: [Bool],
        _ body: (_ row: Int, _ logits: UnsafeBufferPointer<Float>) -> Void
    ) {
        forEachRow(of: rows, body)
    }

    package var headStatistics: HeadStatistics { HeadStatistics() }
}

extension UnsafeBufferPointer<Float> {
    /// Row `index` of a matrix of `count` rows.
    package func row(_ index: Int, of count: Int) -> UnsafeBufferPointer<Float> {
        let width = self.count / count
        return UnsafeBufferPointer(rebasing: self[(index * width)..<((index + 1) * width)])
    }
}
