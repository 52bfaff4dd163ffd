/// What somebody wants of the logits of one row of a step. One row's wish does not change another's bytes.
package struct LogitRequest {
    package enum Wish: Equatable, Sendable {
        /// So many of the largest that the mask allows, found in whatever way costs least.
        case largest(Int)
        /// All of them, whatever the mask; with a number, how the back end would have found so many of the largest is compared with them.
        case all(comparing: Int?)

        package static var all: Wish { .all(comparing: nil) }
    }

    package let row: Int
    package let wish: Wish
    package let mask: TokenMask

    package init(row: Int, wish: Wish, mask: TokenMask) {
        self.row = row
        self.wish = wish
        self.mask = mask
    }
}

/// What a row gets: valid during the call that gives it.
package enum RowLogits {
    /// As `LargestLogits` lists them: the largest first, ties by id; fewer than were asked for where there are not so many.
    case largest(UnsafeBufferPointer<TokenLogit>)
    /// [vocabulary]
    case all(UnsafeBufferPointer<Float>)
}

/// What is added to logits before temperature and cuts: biases and penalties of single tokens.
package struct LogitAdditions: Sendable, Equatable {
    /// Each id once.
    package private(set) var values: [Int32: Float] = [:]

    package init() {}

    package var isEmpty: Bool { values.isEmpty }
    package mutating func add(_ value: Float, to id: Int32) {
        values[id, default: 0] += value
    }

    /// The wish that has what `count` of the largest need once these are added; nil: all logits.
    ///
    /// What only falls leaves its place to at most as many others.
    package func wish(forLargest count: Int) -> LogitRequest.Wish? {
        values.values.allSatisfy { $0 <= 0 } ? .largest(count + values.count) : nil
    }
}
