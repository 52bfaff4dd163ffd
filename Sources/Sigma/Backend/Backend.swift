/// What computes: a small table of transformer-level operations on a residual stream that the back end owns.
///
/// A step is `begin`, `embed`, every layer's `attend` and `feedForward`, `readLogits` or `head` as often as wanted, and `end`; `ForwardPass` is
/// the only caller. One thread calls; a back end runs one step at a time, and one more while that is suspended.
package protocol Backend: AnyObject, Sendable {
    /// The largest number of rows that `head` takes at once.
    var headRowLimit: Int { get }
    /// Whether a row's results are the same bytes whatever rows are beside it.
    var rowsAreIndependent: Bool { get }

    /// An empty sequence, in the back end's memory.
    /// - Throws: `SigmaError(.unavailable)` if the model or the back end cannot have this type.
    func makeSequence(kvType: KVType) throws -> SequenceState

    /// Makes room for the batch's rows, keys and values.
    /// - Throws: `SigmaError(.unavailable)` if memory ends: more than `StepMemory` promised, or another process took it.
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
    /// Calls `body` once for each request, with its index; requests of one kind of wish in their order. The requests' rows ascend.
    func readLogits(_ requests: [LogitRequest], _ body: (_ index: Int, _ logits: RowLogits) -> Void)
    /// Whether a step can be laid aside between two layers.
    var canSuspend: Bool { get }
    /// Lays the step aside: others can be run, each from its begin to its end, until `resume`. They must not have the suspended one's sequences.
    func suspend()
    /// Goes on with the suspended step as if nothing had been between.
    func resume()
    /// Bytes of weights and cache that the current or last step read.
    var stepBytes: Int { get }
    /// Makes the tokens that the batch keeps part of their sequences.
    /// - Throws: `SigmaError(.inputOutput)` if the weights were lost while they were read; the sequences are then unchanged.
    func end() throws
}

/// All that an engine needs of what computes.
package typealias EngineBackend = Backend & StepMemory & BackendReporting

extension Backend {
    package var canSuspend: Bool { false }
    package func suspend() { preconditionFailure("this back end's steps run to their end") }
    package func resume() { preconditionFailure("no step is suspended") }

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
}

extension LogitRequest {
    /// Runs of requests whose rows follow each other, at most `limit` in a run: the head is read once for each.
    package static func forEachRun(_ requests: [LogitRequest], limit: Int, _ body: (Range<Int>) -> Void) {
        var first = 0
        while first < requests.count {
            var end = first + 1
            while end < requests.count, end - first < limit, requests[end].row == requests[end - 1].row + 1 { end += 1 }
            body(first..<end)
            first = end
        }
    }
}

extension UnsafeBufferPointer<Float> {
    /// Row `index` of a matrix of `count` rows.
    package func row(_ index: Int, of count: Int) -> UnsafeBufferPointer<Float> {
        let width = self.count / count
        return UnsafeBufferPointer(rebasing: self[(index * width)..<((index + 1) * width)])
    }
}
