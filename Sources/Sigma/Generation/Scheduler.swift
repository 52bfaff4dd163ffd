#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

/// Runs the steps of all live generations on one thread.
///
/// A step is one batch: a token of every generation that is past its prompt, and pieces of prompts, as far as the back end's row limit
/// goes. Who found no place goes first in the next step. Where rows are not independent of what is beside them, a step has one generation.
final class Scheduler: @unchecked Sendable {
    struct Job {
        let generation: Generation
        let onEnd: @Sendable (Result<Void, any Error>) -> Void
    }

    private let mutex: UnsafeMutablePointer<pthread_mutex_t> = .allocate(capacity: 1)
    private let hasWork: UnsafeMutablePointer<pthread_cond_t> = .allocate(capacity: 1)
    private var jobs: [Job] = []
    // The thread's own.
    private let forwardPass: ForwardPass
    private let batch = Batch()
    private let routing: RoutingRecord
    private var isClosed = false

    init(_ forwardPass: ForwardPass, _ configuration: ModelConfiguration) {
        self.forwardPass = forwardPass
        routing = RoutingRecord(configuration)
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(hasWork, nil)
    }

    deinit {
        pthread_mutex_destroy(mutex)
        pthread_cond_destroy(hasWork)
        mutex.deallocate()
        hasWork.deallocate()
    }

    /// - Throws: `SigmaError(.unavailable)` if the system gives no thread.
    func startThread() throws { try NativeThread { self.work() }.detach() }

    func append(_ job: Job) {
        pthread_mutex_lock(mutex)
        jobs.append(job)
        pthread_cond_signal(hasWork)
        pthread_mutex_unlock(mutex)
    }

    func close() {
        pthread_mutex_lock(mutex)
        isClosed = true
        pthread_cond_signal(hasWork)
        pthread_mutex_unlock(mutex)
    }

    /// All that wait; nil when the engine is gone. A generation holds its engine, so none is waiting then.
    private func takeJobs() -> [Job]? {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while jobs.isEmpty && !isClosed { pthread_cond_wait(hasWork, mutex) }
        defer { jobs.removeAll(keepingCapacity: true) }
        return jobs.isEmpty ? nil : jobs
    }

    /// Puts jobs back, before those that came meanwhile.
    private func putBack(_ waiting: [Job], _ stepped: [Job]) {
        pthread_mutex_lock(mutex)
        jobs = waiting + jobs + stepped
        pthread_mutex_unlock(mutex)
    }

    private func work() {
        while let jobs = takeJobs() {
            let limit = forwardPass.backend.rowsAreIndependent ? jobs.count : 1
            var members: [Member] = []
            var rows = 0
            var taken = 0
            while taken < limit, rows < forwardPass.backend.rowLimit {
                let job = jobs[taken]
                taken += 1
                if let piece = job.generation.takePiece(limit: forwardPass.backend.rowLimit - rows) {
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
        var generation: Generation { job.generation }
    }

    /// One step.
    /// - Returns: the jobs that go on.
    private func run(_ members: [Member]) -> [Job] {
        // Rows whose logits are wanted lie side by side, so that the head is read once for all of them.
        let members = members.sorted { $0.piece.count < $1.piece.count }
        // Emptied again: a batch would keep sequences alive that nobody else wants.
        defer { batch.removeAll() }
        for member in members { batch.append(member.piece, to: member.generation.timeline.sequence) }
        batch.routing = members.contains(where: \.generation.observesRouting) ? routing : nil
        let before = monotonicTime()
        do {
            let completed = try forwardPass.run(
                batch, isCancelled: { members.allSatisfy(\.generation.isCancelled) }
            ) { readOut($0, members) }
            guard completed else {
                for member in members {
                    member.generation.endInterrupted()
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
                if try member.generation.finishStep(seconds: seconds, bytes: forwardPass.backend.stepBytes) {
                    return member.job
                }
                member.job.onEnd(.success(()))
            } catch {
                member.job.onEnd(.failure(error))
            }
            return nil
        }
    }

    private func showRouting(_ members: [Member]) {
        var firstRow = 0
        for member in members {
            member.generation.observeRouting(routing, firstRow: firstRow)
            firstRow += member.piece.count
        }
    }

    private func readOut(_ backend: any Backend, _ members: [Member]) {
        var wanted: [(row: Int, generation: Generation)] = []
        var end = 0
        for member in members {
            if member.generation.wantsPromptPositions { member.generation.readPromptPositions(backend, firstRow: end) }
            end += member.piece.count
            if member.generation.wantsLogits { wanted.append((end - 1, member.generation)) }
        }
        var first = 0
        while first < wanted.count {
            var end = first + 1
            while end < wanted.count, wanted[end].row == wanted[end - 1].row + 1 { end += 1 }
            let start = wanted[first].row
            backend.forEachRow(of: start..<(start + end - first)) { row, logits in
                wanted[first + row - start].generation.readLogits(logits)
            }
            first = end
        }
    }
}
