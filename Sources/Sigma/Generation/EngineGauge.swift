import Synchronization

/// What an engine does now, and did since it was made. The engine's thread writes; any thread reads, and never waits for a step.
package final class EngineGauge: Sendable {
    package struct Reading: Sendable {
        package var steps = 0
        package var rows = 0
        /// Rows that were guesses, and those of them that held.
        package var draftedTokens = 0
        package var acceptedDraftTokens = 0
        /// Of steps that read no prompt: their seconds, and tokens that they added to sequences.
        package var generationSeconds = 0.0
        package var generatedTokens = 0
        /// Pieces of work that have not ended.
        package var work = 0
        package var experts = ExpertStatistics()
        package var head = HeadStatistics()
    }

    private let reporter: any BackendReporting
    private let state = Mutex(Reading())
    /// The clock's time, in nanoseconds, when a layer or a step was last computed; 0: there is no work.
    private let lastProgress = Atomic<UInt64>(0)

    init(_ reporter: any BackendReporting) { self.reporter = reporter }

    package var reading: Reading { state.withLock { $0 } }

    /// Seconds since the work that is there made progress; 0: there is none.
    package var stalledSeconds: Double {
        let last = lastProgress.load(ordering: .relaxed)
        return last == 0 ? 0 : max(0, monotonicTime() - Double(last) * 1e-9)
    }

    // MARK: - The engine's thread

    func makesProgress() {
        lastProgress.store(UInt64(monotonicTime() * 1e9), ordering: .relaxed)
    }

    func stepBegins(work: Int) {
        makesProgress()
        state.withLock { $0.work = work }
    }

    /// There is no work, or all of it waits for its readers.
    func rests(work: Int) {
        lastProgress.store(0, ordering: .relaxed)
        state.withLock { $0.work = work }
    }

    /// - Parameters:
    ///   - seconds: without those of steps between its layers.
    ///   - readsPrompt: whether any of its rows was a prompt's.
    func stepEnded(_ batch: Batch, seconds: Double, readsPrompt: Bool) {
        makesProgress()
        let (experts, head) = (reporter.expertStatistics, reporter.headStatistics)
        state.withLock { state in
            state.steps += 1
            state.rows += batch.tokens.count
            if !readsPrompt {
                state.generationSeconds += seconds
                state.generatedTokens += batch.segments.reduce(0) { $0 + $1.kept }
            }
            for segment in batch.segments {
                state.draftedTokens += segment.drafts
                state.acceptedDraftTokens += segment.kept - (segment.count - segment.drafts)
            }
            state.experts = experts
            state.head = head
        }
    }
}
