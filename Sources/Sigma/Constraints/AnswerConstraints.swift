/// Makes constraints on a model's answers, and keeps what it has made, bounded in number and bytes.
///
/// The model's tokens are prepared when the first constraint is wanted: 0.5 to 0.8 s for 200,000 tokens.
package final class AnswerConstraints: @unchecked Sendable {
    private struct Prepared {
        let tokens: AnswerVocabulary
        let cache: ConstraintCache
    }

    private struct Job {
        let constraint: Constraint
        let body: @Sendable (Result<TokenConstraint, any Error>) -> Void
    }

    private let tokenizer: Tokenizer?
    private let choosable: TokenMask
    private let stopTokens: Set<Int32>
    private let preparation = ConditionLock()
    private var prepared: Prepared?
    private let lock = ConditionLock()
    private var jobs: [Job] = []
    private var isWorking = false

    /// - Parameters:
    ///   - choosable: tokens that may be chosen where nothing constrains them.
    ///   - stopTokens: tokens that end an answer.
    package init(_ tokenizer: Tokenizer?, choosable: TokenMask, stopTokens: Set<Int32>) {
        self.tokenizer = tokenizer
        self.choosable = choosable
        self.stopTokens = stopTokens
    }

    /// Compiles a constraint on the calling thread, which may take a second.
    ///
    /// - Throws: `SigmaError`: `.usage` with JSON Pointer and keyword for what cannot be honoured exactly, or within the limits; `.damaged` for a
    ///   model without tokenizer.
    package func compiled(_ constraint: Constraint) throws -> TokenConstraint {
        let prepared = try prepare()
        do {
            return TokenConstraint(try prepared.cache.compiled(constraint), prepared.tokens)
        } catch {
            throw SigmaError(error)
        }
    }

    /// Calls of functions, compiled on the calling thread.
    ///
    /// - Parameter reach: whether the answer is calls and nothing else, or text that calls may follow.
    /// - Throws: `ConstraintError`; `SigmaError(.damaged)` for a model without tokenizer.
    package func compiled(_ calls: FunctionCalls, reach: TokenConstraint.Reach) throws -> TokenConstraint {
        let prepared = try prepare()
        return TokenConstraint(try prepared.cache.compiled(.calls(calls)), prepared.tokens, reach: reach)
    }

    /// Calls of functions, or an answer that is constrained itself; compiled on the calling thread.
    ///
    /// - Throws: as `compiled(_:reach:)` does.
    package func compiled(_ calls: FunctionCalls, or answer: Constraint) throws -> TokenConstraint {
        let prepared = try prepare()
        return TokenConstraint(try prepared.cache.compiled(.callsOr(calls, answer)), prepared.tokens)
    }

    /// Text in which no call begins.
    ///
    /// - Throws: `SigmaError(.damaged)` for a model without tokenizer.
    package func withoutCalls(_ opening: CallOpening) throws -> TokenConstraint {
        TokenConstraint(withoutCalls: opening, try prepare().tokens)
    }

    /// The same on a thread of its own, one constraint after the other: `body` is called once, on that thread, or on the caller's where there is no
    /// thread.
    package func compile(
        _ constraint: Constraint, then body: @escaping @Sendable (Result<TokenConstraint, any Error>) -> Void
    ) {
        let startsThread = lock.with {
            jobs.append(Job(constraint: constraint, body: body))
            defer { isWorking = true }
            return !isWorking
        }
        guard startsThread else { return }
        do { try NativeThread { self.work() }.detach() } catch {
            // Whoever came meanwhile counts on this thread, too.
            while let job = nextJob() { job.body(.failure(error)) }
        }
    }

    private func work() {
        while let job = nextJob() {
            job.body(Result { try compiled(job.constraint) })
        }
    }

    private func nextJob() -> Job? {
        lock.with {
            if jobs.isEmpty {
                isWorking = false
                return nil
            }
            return jobs.removeFirst()
        }
    }

    private func prepare() throws -> Prepared {
        guard let tokenizer else {
            throw SigmaError(
                .damaged, "the model file has no tokenizer, so its answers cannot be constrained",
                remedy: "Convert a checkpoint folder that has its tokenizer files.")
        }
        return preparation.with {
            if let prepared { return prepared }
            let tokens = AnswerVocabulary(tokenizer, choosable: choosable, stopTokens: stopTokens)
            let made = Prepared(tokens: tokens, cache: ConstraintCache(vocabulary: tokens.vocabulary))
            prepared = made
            return made
        }
    }
}

extension SigmaError {
    /// A constraint that cannot be honoured: the item is the keyword that is to blame, by JSON Pointer.
    init(_ error: ConstraintError) {
        self.init(.usage, error.message, item: error.place)
    }
}
