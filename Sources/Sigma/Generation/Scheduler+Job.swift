extension Scheduler {
    /// A piece of work that the scheduler runs to its end.
    final class Job: @unchecked Sendable {
        let work: any StepWork
        let onEnd: @Sendable (Result<Void, any Error>) -> Void
        // The engine thread's own.
        var arrival = 0
        /// Whether it gave up its keys and values, and waits until there is room for them.
        var isParked = false

        init(work: any StepWork, onEnd: @escaping @Sendable (Result<Void, any Error>) -> Void) {
            self.work = work
            self.onEnd = onEnd
        }

        var sequence: SequenceState { work.timeline.sequence }
        /// Whether it reads a prompt, or computes again what it gave up.
        var isReading: Bool { !work.timeline.missing.isEmpty || !work.isGenerating }
        /// Whether it could have a place in a step now.
        var isReady: Bool { !isParked && !work.isPaused }
    }
}
