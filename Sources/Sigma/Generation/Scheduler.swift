/// Work on a sequence that goes on step by step: a generation, or tokens whose logits somebody wants. Called on the engine's thread.
protocol StepWork: AnyObject, Sendable {
    var timeline: Timeline { get }
    var isCancelled: Bool { get }
    var observesRouting: Bool { get }
    /// The tokens of the next step, at least one; nil if the work has ended.
    func takePiece(limit: Int) -> ArraySlice<Int32>?
    /// Whether the logits of all of the piece's rows are wanted; `readEveryRow` then reads them, from `firstRow` of the step on.
    var wantsEveryRow: Bool { get }
    func readEveryRow(_ backend: any Backend, firstRow: Int)
    /// Which of the last row's are wanted: all, or the largest. `readLogits` or `readLargest` then reads them.
    var wantedLogits: WantedLogits { get }
    func readLogits(_ logits: UnsafeBufferPointer<Float>)
    func readLargest(_ largest: UnsafeBufferPointer<TokenLogit>)
    func observeRouting(_ record: RoutingRecord, firstRow: Int)
    /// Tells whoever watches a long prompt how much of the piece's work is done.
    func showProgress(share: Double)
    /// Takes the step's result in.
    /// - Returns: whether there is more to do.
    func finishStep(seconds: Double, bytes: Int) throws -> Bool
    /// The end of work that was cancelled in a step.
    func endInterrupted()
}

/// What somebody needs of a row's logits.
enum WantedLogits: Equatable {
    case none
    case largest(Int)
    case all
    /// All, and how the back end finds this many of the largest is compared with them.
    case compared(Int)
}

/// Runs the steps of all live generations on one thread.
///
/// A step is one batch: a token of every generation that is past its prompt, and pieces of prompts, as far as the back end's row limit
/// goes. Who found no place goes first in the next step. Where rows are not independent of what is beside them, a step has one generation.
final class Scheduler: @unchecked Sendable {
    struct Job {
        let work: any StepWork
        let onEnd: @Sendable (Result<Void, any Error>) -> Void
    }

    private let lock = ConditionLock()
    private let hasWork: Condition
    private var jobs: [Job] = []
    // The thread's own.
    private let forwardPass: ForwardPass
    private let batch = Batch()
    private let routing: RoutingRecord
    private let allowedTokens: [Bool]
    private var isClosed = false

    /// - Parameter allowedTokens: [vocabulary]: which may be chosen; empty: all.
    init(_ forwardPass: ForwardPass, _ configuration: ModelConfiguration, allowedTokens: [Bool]) {
        self.forwardPass = forwardPass
        self.allowedTokens = allowedTokens
        routing = RoutingRecord(configuration)
        hasWork = Condition(lock)
    }

    /// - Throws: `SigmaError(.unavailable)` if the system gives no thread.
    func startThread() throws { try NativeThread { self.work() }.detach() }

    func append(_ job: Job) {
        lock.lock()
        jobs.append(job)
        hasWork.signal()
        lock.unlock()
    }

    func close() {
        lock.lock()
        isClosed = true
        hasWork.signal()
        lock.unlock()
    }

    /// All that wait; nil when the engine is gone. A generation holds its engine, so none is waiting then.
    private func takeJobs() -> [Job]? {
        lock.lock()
        defer { lock.unlock() }
        while jobs.isEmpty && !isClosed { hasWork.wait() }
        defer { jobs.removeAll(keepingCapacity: true) }
        return jobs.isEmpty ? nil : jobs
    }

    /// Puts jobs back, before those that came meanwhile.
    private func putBack(_ waiting: [Job], _ stepped: [Job]) {
        lock.lock()
        jobs = waiting + jobs + stepped
        lock.unlock()
    }

    private func work() {
        while let jobs = takeJobs() {
            let limit = forwardPass.backend.rowsAreIndependent ? jobs.count : 1
            var members: [Member] = []
            var rows = 0
            var taken = 0
            let rowLimit = jobs.count > 1 ? forwardPass.backend.sharedRowLimit : forwardPass.backend.rowLimit
            while taken < limit, rows < rowLimit {
                let job = jobs[taken]
                taken += 1
                if let piece = job.work.takePiece(limit: rowLimit - rows) {
                    members.append(Member(job: job, piece: piece))
                    rows += piece.count
                } else {
                    job.onEnd(.success(()))
                }
            }
            putBack(Array(jobs[taken...]), members.isEmpty ? [] : run(members))
        }
    }

    /// A generation's part of a step.
    private struct Member {
        let job: Job
        let piece: ArraySlice<Int32>
        var work: any StepWork { job.work }
    }

    /// One step.
    /// - Returns: the jobs that go on.
    private func run(_ members: [Member]) -> [Job] {
        // Rows whose logits are wanted lie side by side, so that the head is read once for all of them.
        let members = members.sorted { $0.piece.count < $1.piece.count }
        // Emptied again: a batch would keep sequences alive that nobody else wants.
        defer { batch.removeAll() }
        for member in members { batch.append(member.piece, to: member.work.timeline.sequence) }
        batch.routing = members.contains(where: \.work.observesRouting) ? routing : nil
        let before = monotonicTime()
        do {
            let completed = try forwardPass.run(
                batch, isCancelled: { members.allSatisfy(\.work.isCancelled) }, progress: { showProgress(members, $0) }
            ) { readOut($0, members) }
            guard completed else {
                for member in members {
                    member.work.endInterrupted()
                    member.job.onEnd(.success(()))
                }
                return []
            }
        } catch {
            // What fails together may succeed alone, where memory ended for one of them.
            batch.removeAll()
            if members.count > 1 { return members.flatMap { run([$0]) } }
            members[0].job.onEnd(.failure(error))
            return []
        }
        let seconds = monotonicTime() - before
        if batch.routing != nil { showRouting(members) }
        return members.compactMap { member in
            do {
                if try member.work.finishStep(seconds: seconds, bytes: forwardPass.backend.stepBytes) {
                    return member.job
                }
                member.job.onEnd(.success(()))
            } catch {
                member.job.onEnd(.failure(error))
            }
            return nil
        }
    }

    /// Some times in a step of many rows, which takes long.
    private func showProgress(_ members: [Member], _ layer: Int) {
        guard batch.tokens.count >= Self.longStep, layer > 0, layer % max(1, forwardPass.layerCount / 8) == 0 else {
            return
        }
        for member in members { member.work.showProgress(share: Double(layer) / Double(forwardPass.layerCount)) }
    }

    /// Rows from which a step's progress is shown.
    private static let longStep = 256

    private func showRouting(_ members: [Member]) {
        var firstRow = 0
        for member in members {
            member.work.observeRouting(routing, firstRow: firstRow)
            firstRow += member.piece.count
        }
    }

    private func readOut(_ backend: any Backend, _ members: [Member]) {
        var wanted: [(row: Int, work: any StepWork)] = []
        var end = 0
        for member in members {
            if member.work.wantsEveryRow { member.work.readEveryRow(backend, firstRow: end) }
            end += member.piece.count
            if member.work.wantedLogits != .none { wanted.append((end - 1, member.work)) }
        }
        var first = 0
        while first < wanted.count {
            var end = first + 1
            while end < wanted.count, wanted[end].row == wanted[end - 1].row + 1 { end += 1 }
            readOut(backend, wanted[first..<end])
            first = end
        }
    }

    /// Of successive rows: the largest logits, as many as one of them needs, unless one needs all.
    private func readOut(_ backend: any Backend, _ wanted: ArraySlice<(row: Int, work: any StepWork)>) {
        let start = wanted.first!.row
        let rows = start..<(start + wanted.count)
        var most = 0
        var compared: Int?
        var needsAll = false
        for (_, work) in wanted {
            switch work.wantedLogits {
            case .none: break
            case .largest(let count): most = max(most, count)
            case .all: needsAll = true
            case .compared(let count): compared = max(compared ?? 0, count)
            }
        }
        if let compared {
            return backend.forEachRow(of: rows, comparing: compared, allowed: allowedTokens) { row, logits in
                wanted[wanted.startIndex + row - start].work.readLogits(logits)
            }
        }
        if needsAll {
            return backend.forEachRow(of: rows) { row, logits in
                wanted[wanted.startIndex + row - start].work.readLogits(logits)
            }
        }
        backend.forEachRow(of: rows, largest: most, allowed: allowedTokens) { row, largest in
            wanted[wanted.startIndex + row - start].work.readLargest(largest)
        }
    }
}
