/// What the engine says of an answer, on its way to one reader: bounded, so that a reader that does not read holds up its own answer and no
/// memory.
///
/// The engine's thread writes; the reader is a task or a thread. A writer never waits: while there is no room, the answer has no step.
package final class AnswerChannel: @unchecked Sendable {
    private enum State {
        /// The answer is being made; the reader that waits, if one does.
        case open(CheckedContinuation<AnswerEvent?, any Error>?)
        /// It has ended, with an error or without: what is in the queue can still be read.
        case ended((any Error)?)
        /// Nobody reads any more: nothing is kept.
        case abandoned
    }

    /// Events that wait before the answer pauses. A step adds a few more.
    package static let capacity = 64

    private let lock = ConditionLock()
    private let arrival: Condition
    private var state = State.open(nil)
    private var events: [AnswerEvent] = []
    private var first = 0
    /// The writer has been told that there is no room.
    private var isPaused = false
    /// Tells the writer that there is room again.
    private let wake: @Sendable () -> Void

    package init(wake: @escaping @Sendable () -> Void) {
        self.wake = wake
        arrival = Condition(lock)
    }

    // MARK: - The writer

    /// Whether the answer may go on.
    package func hasRoom() -> Bool {
        lock.with {
            if case .open = state, events.count - first >= Self.capacity {
                isPaused = true
                return false
            }
            isPaused = false
            return true
        }
    }

    package func write(_ event: AnswerEvent) {
        let reader = lock.with { () -> CheckedContinuation<AnswerEvent?, any Error>? in
            guard case .open(let reader) = state else { return nil }
            if let reader {
                state = .open(nil)
                return reader
            }
            // Of the prompt's progress the newest is enough.
            if case .prefill = event, first < events.count, case .prefill = events[events.count - 1] {
                events[events.count - 1] = event
            } else {
                events.append(event)
            }
            arrival.signal()
            return nil
        }
        reader?.resume(returning: event)
    }

    package func end(_ result: Result<Void, any Error>) {
        let error: (any Error)? =
            switch result {
            case .success: nil
            case .failure(let error): error
            }
        let reader = lock.with { () -> CheckedContinuation<AnswerEvent?, any Error>? in
            guard case .open(let reader) = state else { return nil }
            state = .ended(error)
            arrival.broadcast()
            return reader
        }
        if let error { reader?.resume(throwing: error) } else { reader?.resume(returning: nil) }
    }

    // MARK: - The reader

    /// The next event; nil at the end.
    /// - Throws: what ended the answer.
    package func read() async throws -> AnswerEvent? {
        try await withCheckedThrowingContinuation { reader in
            lock.lock()
            if first < events.count {
                let event = takeFirst()
                leave()
                return reader.resume(returning: event)
            }
            switch state {
            case .open:
                state = .open(reader)
                lock.unlock()
            case .ended(let error):
                state = .ended(nil)
                lock.unlock()
                if let error { reader.resume(throwing: error) } else { reader.resume(returning: nil) }
            case .abandoned:
                lock.unlock()
                reader.resume(returning: nil)
            }
        }
    }

    /// The same on a thread, which waits.
    package func readOnThread() throws -> AnswerEvent? {
        lock.lock()
        while true {
            if first < events.count {
                let event = takeFirst()
                leave()
                return event
            }
            switch state {
            case .open: arrival.wait()
            case .ended(let error):
                state = .ended(nil)
                lock.unlock()
                if let error { throw error }
                return nil
            case .abandoned:
                lock.unlock()
                return nil
            }
        }
    }

    private func takeFirst() -> AnswerEvent {
        let event = events[first]
        first += 1
        // A reader that never quite catches up must not keep all that it has read.
        if first == events.count || first == Self.capacity {
            events.removeFirst(first)
            first = 0
        }
        return event
    }

    /// Unlocks, and tells a paused writer once half of the room is free.
    private func leave() {
        let wakes = isPaused && events.count - first <= Self.capacity / 2
        if wakes { isPaused = false }
        lock.unlock()
        if wakes { wake() }
    }

    /// Nobody will read any more.
    package func abandon() {
        let reader = lock.with { () -> CheckedContinuation<AnswerEvent?, any Error>? in
            var reader: CheckedContinuation<AnswerEvent?, any Error>?
            if case .open(let waiting) = state { reader = waiting }
            state = .abandoned
            events.removeAll()
            first = 0
            arrival.broadcast()
            return reader
        }
        reader?.resume(returning: nil)
        wake()
    }
}
