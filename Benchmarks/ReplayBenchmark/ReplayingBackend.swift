import SampleFiles
import Sigma

/// The CPU back end, which computes all that it is asked for; but the token that follows is always the next one of a text.
///
/// Steps of one sequence only.
final class ReplayingBackend: ForwardingBackend, @unchecked Sendable {
    /// The prompt, and what is replayed after it.
    var text: [Int32] = []
    /// The place of a token that its row's mask forbids, were it replayed.
    private(set) var refused: Int?
    let backend: CPUBackend
    private var segment: Batch.Segment?

    init(_ backend: CPUBackend) { self.backend = backend }

    func begin(_ batch: Batch) throws {
        precondition(batch.segments.count == 1)
        segment = batch.segments[0]
        try backend.begin(batch)
    }

    func readLogits(_ requests: [LogitRequest], _ body: (_ index: Int, _ logits: RowLogits) -> Void) {
        let segment = segment!
        backend.readLogits(requests) { index, _ in
            let place = segment.position + requests[index].row + 1
            let next = TokenLogit(id: place < text.count ? text[place] : text[text.count - 1], logit: 0)
            if !requests[index].mask.allows(Int(next.id)), refused == nil { refused = place }
            withUnsafePointer(to: next) { body(index, .largest(UnsafeBufferPointer(start: $0, count: 1))) }
        }
    }
}
