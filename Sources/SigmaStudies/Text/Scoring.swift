import Sigma
import SystemLibrary

/// Runs a model over windows of a text and shows the logits of every position that another token follows.
///
/// Only a few rows of logits exist at a time, whatever the vocabulary. One thread uses it; no generation may run on the engine meanwhile.
package final class Scorer {
    private let engine: Engine
    private let sequence: SequenceState
    private let batch = Batch()

    /// - Throws: `SigmaError(.unavailable)` if the model cannot have such a key-value cache.
    package init(engine: Engine, kvType: KVType) throws {
        self.engine = engine
        sequence = try engine.backend.makeSequence(kvType: kvType)
    }

    /// Cuts a text into windows of `length` tokens without overlap, each beginning with `bos` if there is one. What is left at the end
    /// is a shorter window, if it has a token to score.
    package static func windows(of tokens: [Int32], length: Int, bos: Int32?) -> [[Int32]] {
        let start = bos.map { [$0] } ?? []
        precondition(length >= 2)
        let step = length - start.count
        return stride(from: 0, to: tokens.count, by: step)
            .map { start + tokens[$0..<min($0 + step, tokens.count)] }
            .filter { $0.count >= 2 }
    }

    /// Calls `visit` with each position of the window but the last, and the logits [vocabulary] of what follows it.
    ///
    /// - Parameter isCancelled: asked before every layer.
    /// - Throws: `CancellationError` if it was cancelled; `SigmaError` as the forward pass; what `visit` throws.
    package func score(
        _ window: [Int32], isCancelled: () -> Bool,
        visit: (_ position: Int, _ logits: UnsafeBufferPointer<Float>) throws -> Void
    ) throws {
        sequence.truncate(to: 0)
        var start = 0
        while start < window.count {
            let piece = try engine.piece(of: window[start...], for: sequence)
            try step(piece, isCancelled) { backend in
                try backend.forEachRow(of: Self.scoredRows(of: piece, in: window)) { row, logits in
                    try visit(piece.startIndex + row, logits)
                }
            }
            start = piece.endIndex
        }
    }

    /// As `score`, with the logits of two models of one vocabulary side by side.
    ///
    /// The other model's step runs inside this one's, so that both hold their activations and no logits are stored.
    package func score(
        _ window: [Int32], beside other: Scorer, isCancelled: () -> Bool,
        visit: (_ position: Int, _ logits: UnsafeBufferPointer<Float>, _ others: UnsafeBufferPointer<Float>) throws ->
            Void
    ) throws {
        precondition(engine !== other.engine && engine.vocabularySize == other.engine.vocabularySize)
        sequence.truncate(to: 0)
        other.sequence.truncate(to: 0)
        var start = 0
        while start < window.count {
            let own = try engine.piece(of: window[start...], for: sequence)
            let piece = try other.engine.piece(of: own, for: other.sequence)
            try step(piece, isCancelled) { backend in
                try other.step(piece, isCancelled) { otherBackend in
                    let rows = Self.scoredRows(of: piece, in: window)
                    let step = min(backend.headRowLimit, otherBackend.headRowLimit)
                    for first in stride(from: 0, to: rows.upperBound, by: step) {
                        let part = first..<min(first + step, rows.upperBound)
                        let (logits, others) = (backend.head(rows: part), otherBackend.head(rows: part))
                        for row in 0..<part.count {
                            try visit(
                                piece.startIndex + first + row, logits.row(row, of: part.count),
                                others.row(row, of: part.count))
                        }
                    }
                }
            }
            start = piece.endIndex
        }
    }

    private func step(
        _ tokens: ArraySlice<Int32>, _ isCancelled: () -> Bool, readOut: (any Backend) throws -> Void
    ) throws {
        batch.removeAll()
        batch.append(tokens, to: sequence)
        guard try engine.forwardPass.run(batch, isCancelled: isCancelled, readOut: readOut) else {
            throw CancellationError()
        }
    }

    /// The piece's rows that have a next token.
    private static func scoredRows(of piece: ArraySlice<Int32>, in window: [Int32]) -> Range<Int> {
        0..<(min(piece.endIndex, window.count - 1) - piece.startIndex)
    }
}

/// How well a model foresees a text.
package struct Perplexity: Sendable {
    package private(set) var tokens = 0
    private var mean = 0.0
    private var squares = 0.0

    package init() {}

    /// Adds a token's negative log-probability.
    package mutating func add(_ nll: Double) {
        // Welford's recurrence: exact enough for any number of tokens.
        tokens += 1
        let difference = nll - mean
        mean += difference / Double(tokens)
        squares += difference * (nll - mean)
    }

    /// Mean negative log-probability, in nats.
    package var nll: Double { mean }
    /// Standard error of `nll`; not a number for a single token.
    package var standardError: Double {
        tokens > 1 ? (squares / Double(tokens - 1) / Double(tokens)).squareRoot() : .nan
    }
    package var perplexity: Double { exp(mean) }
}

/// How far a model's distributions are from a reference model's.
package struct Divergence: Sendable {
    private var values: [Double] = []
    private var agreements = 0
    private var own = Perplexity()
    private var difference = Perplexity()

    package init() {}

    /// Adds a position: KL(reference || model) over the whole vocabulary in fp64, whether both hold the same token likeliest, and how
    /// likely each held the token that came.
    package mutating func add(
        reference: UnsafeBufferPointer<Float>, model: UnsafeBufferPointer<Float>, next: Int32
    ) {
        let p = LogProbabilities(reference)
        let q = LogProbabilities(model)
        var sum = 0.0
        for id in 0..<Int32(reference.count) {
            let logP = p[id]
            // An impossible token adds nothing, whatever the other model thinks of it.
            if logP > -.infinity || logP.isNaN { sum += exp(logP) * (logP - q[id]) }
        }
        // Rounding can leave a value below zero, which a divergence never is.
        values.append(sum < 0 ? 0 : sum)
        if p.likeliest == q.likeliest { agreements += 1 }
        own.add(-q[next])
        difference.add(p[next] - q[next])
    }

    package var positions: Int { values.count }
    package var mean: Double { values.reduce(0, +) / Double(values.count) }
    /// Standard error of the mean, positions taken as independent; not a number for a single position.
    package var standardError: Double {
        let mean = mean
        let squares = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
        return values.count > 1 ? (squares / Double(values.count - 1) / Double(values.count)).squareRoot() : .nan
    }
    package var most: Double { percentile(1) }
    /// The smallest value that at least this share of the positions does not exceed.
    package func percentile(_ share: Double) -> Double {
        let sorted = values.sorted { $1.isNaN ? !$0.isNaN : $0 < $1 }
        return sorted.isEmpty ? .nan : sorted[max(0, Int((share * Double(sorted.count)).rounded(.up)) - 1)]
    }
    /// Share of the positions with the same likeliest token, ties to the lowest id.
    package var agreement: Double { Double(agreements) / Double(values.count) }
    /// The model's mean negative log-probability of the tokens that came, in nats.
    package var nll: Double { own.nll }
    /// By how much that is above the reference's: token by token, so that what makes the text hard cancels.
    package var nllDifference: Double { difference.nll }
    package var nllDifferenceError: Double { difference.standardError }
}
