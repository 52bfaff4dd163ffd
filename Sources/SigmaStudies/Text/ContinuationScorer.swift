import Sigma

/// How likely a model holds continuations of contexts.
///
/// The requests' tokens form a tree: what several of them begin with is computed once, whichever requests those are. A branch of the tree is a
/// sequence that begins with its parent's blocks of keys and values, and a step computes as many branches as it has rows for. Results don't depend
/// on how the tree is cut into steps, except in models whose float products OpenBLAS computes, where last bits may differ.
///
/// One thread uses it; no generation may run on the engine meanwhile.
package final class ContinuationScorer {
    /// A context with its continuation.
    package struct Request: Sendable {
        package var tokens: [Int32]
        /// Tokens of the context, at least one: the others are scored.
        package var contextCount: Int

        package init(tokens: [Int32], contextCount: Int) {
            precondition(contextCount > 0 && contextCount <= tokens.count)
            self.tokens = tokens
            self.contextCount = contextCount
        }

        /// Positions that must be computed: what follows the last token does not matter, nor does a context that nothing follows.
        fileprivate var computedCount: Int { contextCount < tokens.count ? tokens.count - 1 : 0 }
        fileprivate var scoredPositions: Range<Int> { min(contextCount - 1, computedCount)..<computedCount }
    }

    package struct Score: Sendable, Equatable {
        /// Of each token of the continuation, in nats.
        package fileprivate(set) var logProbabilities: [Double]
        /// Whether each of them is the likeliest in its place; ties count.
        package fileprivate(set) var isGreedy = true

        package var sum: Double { logProbabilities.reduce(0, +) }
    }

    /// Rows of the steps so far, and what they would have been had no request shared anything.
    package private(set) var computedRows = 0
    package private(set) var requestedRows = 0

    private let engine: Engine
    private let kvType: KVType
    private let sharesPrefixes: Bool
    private let batch = Batch()

    /// - Parameter sharesPrefixes: false computes every request from its first token on, to measure what sharing saves.
    package init(engine: Engine, kvType: KVType, sharesPrefixes: Bool = true) {
        self.engine = engine
        self.kvType = kvType
        self.sharesPrefixes = sharesPrefixes
    }

    /// Scores in the requests' order.
    ///
    /// - Parameters:
    ///   - isCancelled: asked before every layer.
    ///   - progress: called after every step with the share of the requested rows that is done.
    /// - Throws: `CancellationError` if it was cancelled; `SigmaError(.unavailable)` if memory ends; as the forward pass.
    package func scores(
        of requests: [Request], isCancelled: () -> Bool, progress: (Double) -> Void = { _ in }
    ) throws -> [Score] {
        // Neighbours share the most.
        let order = requests.indices.sorted { requests[$0].tokens.lexicographicallyPrecedes(requests[$1].tokens) }
        var tree = Tree(requests: order.map { requests[$0] }, sharesPrefixes: sharesPrefixes)
        let total = tree.requests.reduce(0) { $0 + $1.computedCount }
        requestedRows += total
        var ready = tree.children(of: 0..<order.count, at: 0, prefix: nil)
        var doneRows = 0
        while !ready.isEmpty {
            let running = try takeStep(&ready, tree)
            try step(running, &tree, isCancelled)
            for branch in running {
                doneRows +=
                    branch.rows.suffix(from: max(branch.start, branch.rows.lowerBound)).count * branch.members.count
                guard branch.sequence.length == branch.end else {
                    ready.append(Branch(continuing: branch))
                    continue
                }
                ready += tree.children(
                    of: branch.members, at: branch.end, prefix: branch.sequence.prefix(branch.end))
            }
            progress(Double(doneRows) / Double(max(1, total)))
        }
        var scores = [Score](repeating: Score(logProbabilities: []), count: requests.count)
        for (place, index) in order.enumerated() { scores[index] = tree.scores[place] }
        return scores
    }

    // MARK: - Steps

    /// Takes branches off the end of `ready`, as many as a step has room for, and fills the batch with them. What cannot be finished in one step
    /// is alone in it.
    ///
    /// The last ones to get ready come first: so a branch's children follow it soon, and few branches hold memory.
    private func takeStep(_ ready: inout [Branch], _ tree: Tree) throws -> [RunningBranch] {
        batch.removeAll()
        var running: [RunningBranch] = []
        while let branch = ready.last {
            let sequence = try branch.sequence(engine, kvType)
            let rest = tree.requests[branch.members.lowerBound].tokens[sequence.length..<branch.end]
            let room = engine.backend.room(for: sequence, limit: rest.count, beside: batch)
            if room == 0 && running.isEmpty {
                if Self.releaseOne(&ready) { continue }
                // Nothing is left to give back: this says what is missing.
                _ = try engine.piece(of: rest, for: sequence)
            }
            guard room == rest.count || (room > 0 && running.isEmpty) else { break }
            ready.removeLast()
            batch.append(rest.prefix(room), to: sequence)
            running.append(RunningBranch(branch, sequence, rows: rest.startIndex..<rest.startIndex + room))
        }
        return running
    }

    /// Lets a waiting branch forget its parent's keys and values, so that their memory is free: it will compute them again.
    private static func releaseOne(_ ready: inout [Branch]) -> Bool {
        // The last one comes next, and needs what it has.
        guard let index = ready.indices.dropLast().first(where: { ready[$0].prefix != nil }) else { return false }
        ready[index].prefix = nil
        return true
    }

    private func step(_ running: [RunningBranch], _ tree: inout Tree, _ isCancelled: () -> Bool) throws {
        var wishes: [LogitRequest] = []
        var places: [(members: Range<Int>, position: Int)] = []
        for (branch, segment) in zip(running, batch.segments) {
            for position in branch.rows where position >= branch.start {
                guard tree.isScored(branch.members, at: position) else { continue }
                let row = segment.firstRow + position - branch.rows.lowerBound
                wishes.append(LogitRequest(row: row, wish: .all, mask: engine.choosable))
                places.append((branch.members, position))
            }
        }
        let isDone = try engine.forwardPass.run(batch, isCancelled: isCancelled) { backend in
            backend.readLogits(wishes) { index, logits in
                guard case .all(let all) = logits else { return }
                tree.score(places[index].members, at: places[index].position, LogProbabilities(all))
            }
        }
        guard isDone else { throw CancellationError() }
        computedRows += batch.tokens.count
    }
}

// MARK: - The tree

/// A run of tokens that some requests have in common, after the prefix that they share with others. It waits to be computed.
private struct Branch {
    /// Its requests, in the tree's order.
    let members: Range<Int>
    /// Its positions.
    let start: Int
    let end: Int
    /// Keys and values of positions before its own, or of its first ones; nil: they are computed again.
    var prefix: SequenceState.Prefix?

    init(_ members: Range<Int>, _ positions: Range<Int>, prefix: SequenceState.Prefix?) {
        self.members = members
        (start, end) = (positions.lowerBound, positions.upperBound)
        self.prefix = prefix
    }

    /// What a step has left of it.
    init(continuing branch: RunningBranch) {
        members = branch.members
        // Those before are scored.
        start = max(branch.start, branch.rows.upperBound)
        end = branch.end
        prefix = branch.sequence.prefix(branch.sequence.length)
    }

    func sequence(_ engine: Engine, _ kvType: KVType) throws -> SequenceState {
        let sequence = try engine.backend.makeSequence(kvType: kvType)
        if let prefix { sequence.begin(with: prefix) }
        return sequence
    }
}

/// A branch in a step.
private struct RunningBranch {
    let members: Range<Int>
    let start: Int
    let end: Int
    let sequence: SequenceState
    /// Positions that the step computes: its own, and those before that have to be computed again.
    let rows: Range<Int>

    init(_ branch: Branch, _ sequence: SequenceState, rows: Range<Int>) {
        (members, start, end) = (branch.members, branch.start, branch.end)
        self.sequence = sequence
        self.rows = rows
    }
}

/// Requests in the order of their tokens, with their scores.
private struct Tree {
    let requests: [ContinuationScorer.Request]
    private(set) var scores: [ContinuationScorer.Score]
    private let sharesPrefixes: Bool

    init(requests: [ContinuationScorer.Request], sharesPrefixes: Bool) {
        self.requests = requests
        self.sharesPrefixes = sharesPrefixes
        scores = requests.map {
            .init(logProbabilities: Array(repeating: 0, count: $0.tokens.count - $0.contextCount))
        }
    }

    /// What follows a branch: a branch for each of the tokens that its members have at `position`.
    func children(of members: Range<Int>, at position: Int, prefix: SequenceState.Prefix?) -> [Branch] {
        var branches: [Branch] = []
        var first = members.lowerBound
        while first < members.upperBound {
            defer { first += 1 }
            guard requests[first].computedCount > position else { continue }
            var last = first
            var end = requests[first].computedCount
            while sharesPrefixes, last + 1 < members.upperBound {
                let common = commonCount(first, last + 1, from: position, limit: end)
                guard common > position else { break }
                end = common
                last += 1
            }
            branches.append(Branch(first..<last + 1, position..<end, prefix: prefix))
            first = last
        }
        return branches
    }

    /// Positions that both compute for the same tokens, at most `limit`; those before `position` are known to be.
    private func commonCount(_ a: Int, _ b: Int, from position: Int, limit: Int) -> Int {
        let limit = min(limit, requests[b].computedCount)
        var count = position
        while count < limit, requests[a].tokens[count] == requests[b].tokens[count] { count += 1 }
        return count
    }

    /// Whether a member's continuation has the token after the position.
    func isScored(_ members: Range<Int>, at position: Int) -> Bool {
        members.contains { requests[$0].scoredPositions.contains(position) }
    }

    mutating func score(_ members: Range<Int>, at position: Int, _ distribution: LogProbabilities) {
        let most = distribution.likeliest.map { distribution.logits[Int($0)] }
        for member in members where requests[member].scoredPositions.contains(position) {
            let request = requests[member]
            let next = request.tokens[position + 1]
            scores[member].logProbabilities[position + 1 - request.contextCount] = distribution[next]
            if distribution.logits[Int(next)] != most { scores[member].isGreedy = false }
        }
    }
}
