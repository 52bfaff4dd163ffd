import Sigma
import SystemLibrary

/// States that an output head is screened with: a model's own, and others made of them that are hard for a screen.
package enum StateKind: String, Sendable, CaseIterable {
    /// After the final norm, as the forward pass gives it.
    case real
    /// A millionth of it.
    case tiny
    /// One column is a hundred times the root mean square.
    case outlier
    /// Normal numbers of the same length.
    case random
    /// The sum of 100 rows of the head, all of one length: their logits lie near each other.
    case tied
    /// A tenth of the length is what the coarse plane misses of a row that is among the largest: its estimate is too low by as many standard
    /// deviations as a tenth of the root of the width.
    case leaning
    /// All of it is what the coarse plane misses of a row.
    case aligned
}

/// Compares the full and the screened output head on states of all kinds.
package final class HeadSurvey {
    /// What became of the states of one kind.
    package struct Tally: Sendable {
        package var positions = 0
        package var misses = 0
        package var missesOfTheFirst = 0
        package var fallbacks = 0
        package var fineRows = 0
        package var exactRows = 0
        /// Of every position that the screen decided.
        package var neededDeviations: [Float] = []

        package init() {}

        /// Positions that margins of so many standard deviations would have missed.
        package func misses(at deviations: Double) -> Int { neededDeviations.count { Double($0) > deviations } }
    }

    private let backend: any HeadExperiments
    private let configuration: ModelConfiguration
    private let headRowLimit: Int
    private let count: Int
    private let mask: TokenMask
    private let deviations: Float?
    private var random: SplitMix64
    package private(set) var tallies: [StateKind: Tally] = [:]

    /// - Parameters:
    ///   - engine: whose model has screening planes.
    ///   - count: of the largest logits that are compared.
    ///   - deviations: how wide margins are; nil: as in generation.
    /// - Throws: `SigmaError(.unavailable)` if the engine has no screen to look at.
    package init(_ engine: Engine, largest count: Int, deviations: Float? = nil, seed: UInt64) throws {
        guard engine.backend.report.screensHead, let backend = engine.backend as? any HeadExperiments else {
            throw SigmaError(
                .unavailable, "the head is not screened: the model file has no planes, or another back end computes",
                path: engine.modelPath, remedy: .set(.backend, to: "cpu"))
        }
        self.backend = backend
        configuration = engine.configuration
        headRowLimit = engine.backend.headRowLimit
        mask = engine.choosable
        self.count = count
        self.deviations = deviations
        random = SplitMix64(state: seed)
    }

    /// Compares the heads on states [rows, hidden] of the model, and on what is made of them.
    ///
    /// - Throws: `SigmaError(.unavailable)` if memory ends; `CancellationError`.
    package func add(_ states: [Float], kinds: [StateKind], isCancelled: () -> Bool) throws {
        let hidden = configuration.hiddenSize
        let step = headRowLimit * hidden
        for start in stride(from: 0, to: states.count, by: step) {
            let part = Array(states[start..<min(start + step, states.count)])
            let rows = (0..<part.count / hidden).map { Array(part[$0 * hidden..<($0 + 1) * hidden]) }
            var largest: [[TokenLogit]] = []
            for kind in kinds {
                if isCancelled() { throw CancellationError() }
                var made: [Float] = []
                for (index, row) in rows.enumerated() {
                    made += state(kind, row, largest: largest.isEmpty ? [] : largest[index])
                }
                let results = try backend.compareHeads(made, largest: count, mask: mask, deviations: deviations)
                if kind == .real { largest = results.map(\.full) }
                for result in results { tallies[kind, default: Tally()].add(result) }
            }
        }
    }

    private func state(_ kind: StateKind, _ x: [Float], largest: [TokenLogit]) -> [Float] {
        let length = Self.length(x)
        switch kind {
        case .real: return x
        case .tiny: return x.map { $0 * 1e-6 }
        case .outlier:
            var y = x
            y[Int(random.next() % UInt64(y.count))] = 100 * length / Float(x.count).squareRoot()
            return y
        case .random: return Self.scaled(normals(x.count), to: length)
        case .tied:
            var sum = [Float](repeating: 0, count: x.count)
            for _ in 0..<100 {
                let row = Self.scaled(backend.headRow(anyToken()), to: 1)
                for column in sum.indices { sum[column] += row[column] }
            }
            return Self.scaled(sum, to: length)
        case .leaning:
            let id = largest.randomElement(using: &random)?.id ?? Int32(anyToken())
            let error = Self.scaled(backend.coarseError(Int(id)), to: 0.1 * length)
            return zip(x, error).map { $0 + $1 }
        case .aligned: return Self.scaled(backend.coarseError(anyToken()), to: length)
        }
    }

    private func anyToken() -> Int {
        while true {
            let id = Int(random.next() % UInt64(configuration.vocabularySize))
            if mask.allows(id) { return id }
        }
    }

    private func normals(_ count: Int) -> [Float] {
        (0..<count).map { _ in
            Float((-2 * log(1 - random.nextUnit())).squareRoot() * cos(2 * .pi * random.nextUnit()))
        }
    }

    private static func length(_ x: [Float]) -> Float {
        Float(x.reduce(0.0) { $0 + Double($1) * Double($1) }.squareRoot())
    }

    private static func scaled(_ x: [Float], to length: Float) -> [Float] {
        let own = self.length(x)
        return own > 0 ? x.map { $0 * (length / own) } : x
    }
}

extension HeadSurvey.Tally {
    fileprivate mutating func add(_ result: HeadComparison) {
        positions += 1
        if result.isMiss { misses += 1 }
        if result.isMissOfTheFirst { missesOfTheFirst += 1 }
        if result.screened == nil {
            fallbacks += 1
        } else {
            neededDeviations.append(Float(result.neededDeviations))
        }
        fineRows += result.fineRows
        exactRows += result.exactRows
    }
}
