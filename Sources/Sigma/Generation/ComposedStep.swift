/// A step while it is composed and run: its members, their rows, and what each wants of the logits. Reused, so that a step allocates nothing.
final class ComposedStep {
    /// A piece of work's part of a step.
    struct Member {
        let job: Scheduler.Job
        var piece: ArraySlice<Int32>
        /// Of the piece, the last so many are guesses.
        var drafts = 0
        /// Tokens of the timeline whose keys and values were given up: nobody wants anything of them.
        let isRecomputed: Bool
        /// Whether it reads a prompt, or computes again: more than the next token.
        let isReading: Bool
        var firstRow = 0
        var work: any StepWork { job.work }
    }

    private(set) var members: [Member] = []
    let batch = Batch()
    /// Whether answers wait while prompts are read, in this step or beside it.
    var isShared = false
    /// Whether it ends before its next layer, without a result, to be composed again.
    var isWithdrawn = false
    /// What the members but one have in it.
    private let others = Batch()
    private let routing: RoutingRecord
    private var requests: [LogitRequest] = []
    private var requesters: [(member: Int, row: Int)] = []

    init(_ configuration: ModelConfiguration) { routing = RoutingRecord(configuration) }

    var isEmpty: Bool { members.isEmpty }
    /// Rows of prompts.
    var promptRows: Int { members.reduce(0) { $0 + ($1.isReading ? $1.piece.count : 0) } }
    var isCancelled: Bool { isWithdrawn || members.allSatisfy(\.work.isCancelled) }

    func contains(_ job: Scheduler.Job) -> Bool { members.contains { $0.job === job } }

    // MARK: - Composition

    func removeAll() {
        batch.removeAll()
        members.removeAll(keepingCapacity: true)
        isWithdrawn = false
    }

    /// Adds the next `count` tokens of a job.
    func append(_ job: Scheduler.Job, count: Int) {
        let missing = job.work.timeline.missing
        let isReading = job.isReading
        let piece = missing.isEmpty ? job.work.takePiece(count) : missing.prefix(count)
        members.append(Member(job: job, piece: piece, isRecomputed: !missing.isEmpty, isReading: isReading))
        batch.append(piece, to: job.sequence)
    }

    /// Has one member alone, without guesses.
    func keepOnly(_ member: Member) {
        var member = member
        if member.drafts > 0 {
            member.piece = member.work.takePiece(member.piece.count - member.drafts)
            member.drafts = 0
        }
        members = [member]
        fillBatch()
    }

    /// Arranges the members, and adds guesses where no prompt is read. No member is added afterwards.
    func finish(_ drafts: DraftPlanner, _ memory: any StepMemory) {
        // Rows whose logits are wanted lie side by side, so that the head is read once for all of them.
        members.sort { ($0.piece.count, $0.job.arrival) < ($1.piece.count, $1.job.arrival) }
        if !members.contains(where: \.isReading) { addDrafts(drafts, memory) }
        fillBatch()
    }

    private func fillBatch() {
        batch.removeAll()
        for index in members.indices {
            let member = members[index]
            members[index].firstRow = batch.tokens.count
            batch.append(member.piece, to: member.job.sequence, drafts: member.drafts)
        }
    }

    /// Puts guesses behind the members' pieces, as many as pay, where there is room for them that nobody else wants.
    private func addDrafts(_ drafts: DraftPlanner, _ memory: any StepMemory) {
        let rows = batch.tokens.count
        let limit = min(memory.sharedRowLimit, RowSet.capacity)
        guard rows < limit else { return }
        var drafting: [Int] = []
        var candidates: [DraftPlanner.Candidate] = []
        for (index, member) in members.enumerated() {
            guard let candidate = member.work.proposeDraft() else { continue }
            drafting.append(index)
            candidates.append(candidate)
        }
        if candidates.isEmpty { return }
        drafts.plan(rows: rows, sequences: members.count, limit: limit, &candidates)
        for (index, candidate) in zip(drafting, candidates) where candidate.count > 0 {
            others.removeAll()
            for (other, member) in members.enumerated() where other != index {
                others.append(member.piece, to: member.job.sequence)
            }
            let member = members[index]
            let wanted = member.piece.count + candidate.count
            let room = memory.room(for: member.job.sequence, limit: wanted, beside: others) - member.piece.count
            guard room > 0 else { continue }
            let piece = member.work.takeDraft(room)
            members[index].drafts = piece.count - member.piece.count
            members[index].piece = piece
        }
        others.removeAll()
    }

    // MARK: - The step

    /// - Parameters:
    ///   - interlude: runs other steps between this one's layers; nil: nobody does.
    /// - Returns: false if it was cancelled or withdrawn.
    func run(_ forwardPass: ForwardPass, interlude: (any StepInterlude)?, _ gauge: EngineGauge) throws -> Bool {
        batch.routing = isObserved ? routing : nil
        return try forwardPass.run(
            batch, interlude: interlude, isCancelled: { isCancelled },
            progress: { showProgress($0, of: forwardPass.layerCount, gauge) }, readOut: readOut)
    }

    private var isObserved: Bool { members.contains { !$0.isRecomputed && $0.work.routingObserver != nil } }

    private func readOut(_ backend: any Backend) {
        requests.removeAll(keepingCapacity: true)
        requesters.removeAll(keepingCapacity: true)
        for (index, member) in members.enumerated() where !member.isRecomputed {
            for row in member.work.wishedRows {
                let (wish, mask) = member.work.wish(row: row)
                requests.append(LogitRequest(row: member.firstRow + row, wish: wish, mask: mask))
                requesters.append((index, row))
            }
        }
        if !requests.isEmpty {
            backend.readLogits(requests) { index, logits in
                members[requesters[index].member].work.take(row: requesters[index].row, logits)
            }
        }
        for (index, member) in members.enumerated() where !member.isRecomputed {
            batch.keep(member.work.keptRows, ofSegment: index)
        }
    }

    /// Rows from which a step's progress is shown.
    private static let longStep = 256

    /// Some times in a step of many rows, which takes long.
    private func showProgress(_ layer: Int, of layerCount: Int, _ gauge: EngineGauge) {
        gauge.makesProgress()
        guard batch.tokens.count >= Self.longStep, layer > 0, layer % max(1, layerCount / 8) == 0 else { return }
        for member in members where !member.isRecomputed {
            member.work.showProgress(share: Double(layer) / Double(layerCount))
        }
    }

    /// Shows observers the choices of experts, of the rows that are kept.
    func showRouting() {
        guard batch.routing != nil else { return }
        for (index, member) in members.enumerated() where !member.isRecomputed {
            let segment = batch.segments[index]
            guard let observer = member.work.routingObserver, segment.kept > 0 else { continue }
            observer.observe(
                RoutedTokens(
                    record: routing, rows: segment.firstRow..<segment.firstRow + segment.kept,
                    tokens: member.piece.prefix(segment.kept), sequence: member.work.timeline.number,
                    position: segment.position))
        }
    }
}
