import CSigma

/// A token and its log-probability (nats) in the model's own distribution, before temperature and cuts.
public struct TokenLogProbability: Sendable, Equatable {
    public var id: Int32
    public var logProbability: Double

    package init(id: Int32, logProbability: Double) {
        self.id = id
        self.logProbability = logProbability
    }
}

/// The log-softmax of one row of logits over the whole vocabulary, computed in fp64.
package struct LogProbabilities {
    package let logits: UnsafeBufferPointer<Float>
    package let logSum: Double

    package init(_ logits: UnsafeBufferPointer<Float>) {
        self.logits = logits
        logSum = sigma_kernels_best().pointee.log_sum_exp(logits.baseAddress!, Int32(logits.count))
    }

    /// The likeliest token, ties to the lowest id; nil if no logit is a number.
    package var likeliest: Int32? {
        let most = logits.reduce(-Float.infinity) { $1 > $0 ? $1 : $0 }
        return logits.firstIndex(of: most).map(Int32.init)
    }

    package subscript(id: Int32) -> Double { Double(logits[Int(id)]) - logSum }

    /// From so many on, sorting all takes less time than inserting those that are wanted.
    private static let sortedCount = 16_384

    /// The `count` likeliest tokens, likeliest first, ties by id.
    package func top(_ count: Int) -> [TokenLogProbability] {
        guard count > 0 else { return [] }
        var order: [Int32]
        if count >= Self.sortedCount {
            order = Array(0..<Int32(logits.count))
            order.sort { precedes($0, $1) }
            order.removeLast(max(0, order.count - count))
        } else {
            order = []
            for id in 0..<Int32(logits.count) {
                if order.count == count {
                    if !precedes(id, order[count - 1]) { continue }
                    order.removeLast()
                }
                var (place, end) = (0, order.count)
                while place < end {
                    let middle = (place + end) / 2
                    if precedes(id, order[middle]) { end = middle } else { place = middle + 1 }
                }
                order.insert(id, at: place)
            }
        }
        return order.map { TokenLogProbability(id: $0, logProbability: self[$0]) }
    }

    /// A strict order even where logits are not numbers: those come last.
    private func precedes(_ a: Int32, _ b: Int32) -> Bool {
        let (x, y) = (logits[Int(a)], logits[Int(b)])
        if x.isNaN || y.isNaN { return x.isNaN == y.isNaN ? a < b : y.isNaN }
        return x > y || (x == y && a < b)
    }
}
