import Sigma
import Synchronization

/// The CPU's back end, but what it finds likeliest behind a prompt is a text that is told: what a model would say that no model at hand says. A mask
/// that forbids the next token of the text is a fault of the caller's, or of the mask: the end of the text follows then.
package final class DictatingBackend: ForwardingBackend, @unchecked Sendable {
    package let backend: CPUBackend
    private let dictation = Mutex<(start: Int, text: [Int32])?>(nil)
    // The engine thread's own.
    private var segments: [Batch.Segment] = []

    package init(_ backend: CPUBackend) { self.backend = backend }

    /// - Parameters:
    ///   - text: tokens, the last of which ends the answer.
    ///   - start: tokens of the prompt.
    package func dictate(_ text: [Int32], from start: Int) { dictation.withLock { $0 = (start, text) } }

    package func begin(_ batch: Batch) throws {
        segments = batch.segments
        try backend.begin(batch)
    }

    package func readLogits(_ requests: [LogitRequest], _ body: (_ index: Int, _ logits: RowLogits) -> Void) {
        let dictation = dictation.withLock { $0 }
        backend.readLogits(requests) { index, logits in
            let row = requests[index].row
            guard let dictation, let segment = segments.first(where: { $0.rows.contains(row) }) else {
                return body(index, logits)
            }
            let place = segment.position + row - segment.firstRow + 1 - dictation.start
            var id = dictation.text.indices.contains(place) ? dictation.text[place] : dictation.text.last!
            if !requests[index].mask.allows(Int(id)) { id = dictation.text.last! }
            withUnsafePointer(to: TokenLogit(id: id, logit: 0)) {
                body(index, .largest(UnsafeBufferPointer(start: $0, count: 1)))
            }
        }
    }
}
