import SigmaBase

/// A constraint that is ready for use: its automaton and the masks made so far, shared by all answers under it.
///
/// Thread-safe: one lock, held while a mask is made.
package final class CompiledConstraint: @unchecked Sendable {
    /// The automaton of one generation. When it has grown too large a fresh one takes its place, and states read their
    /// text again; so memory is bounded, and what a state allows does not depend on what others did.
    final class Generation {
        let number: Int
        let automaton: Automaton
        var cache: MaskCache
        private let limits: ConstraintLimits
        /// Longer texts may have more states: reading them again must not end the generation that was made for it.
        private var stateLimit: Int

        var isTooLarge: Bool { automaton.table.count > stateLimit || automaton.arena.count > limits.expressions * 2 }

        func noteReplay() { stateLimit = min(max(stateLimit, automaton.table.count * 2), limits.states * 4) }

        init(number: Int, grammar: Grammar, limits: ConstraintLimits) {
            self.number = number
            self.limits = limits
            stateLimit = limits.states
            automaton = Automaton(grammar: grammar)
            cache = MaskCache(limit: limits.maskBytes)
        }
    }

    package let constraint: Constraint
    package let vocabulary: Vocabulary
    let limits: ConstraintLimits
    private let grammar: Grammar
    private let lock = ConditionLock()
    private var generation: Generation

    /// Compiles a constraint.
    ///
    /// - Throws: `ConstraintError` with JSON Pointer and keyword, also if a limit is passed.
    package init(
        _ constraint: Constraint, vocabulary: Vocabulary, limits: ConstraintLimits = ConstraintLimits()
    ) throws(ConstraintError) {
        self.constraint = constraint
        self.vocabulary = vocabulary
        self.limits = limits
        var grammar = try ConstraintCompiler(limits: limits).grammar(of: constraint)
        try grammar.deriveBeginnings(limits)
        self.grammar = grammar
        generation = Generation(number: 0, grammar: grammar, limits: limits)
    }

    /// Runs `body` with the current automaton, a fresh one where the last has passed its limits.
    func withGeneration<Result>(_ body: (Generation) -> Result) -> Result {
        lock.with {
            if generation.isTooLarge {
                generation = Generation(number: generation.number + 1, grammar: grammar, limits: limits)
            }
            return body(generation)
        }
    }

    /// The state of an answer that has no text yet.
    package func begin() -> ConstraintState { ConstraintState(self) }

    /// Of calls that are tagged XML: what the function's parameters can be.
    package func parameters(of function: String) -> FunctionParameters {
        grammar.calls?.functions.parameters[ByteKey(text: function)] ?? FunctionParameters()
    }

    /// What has been made so far.
    package struct Statistics: Sendable {
        package var states: Int
        package var maskBytes: Int
        package var masksFromCache: Int
        package var masksMade: Int
    }

    package var statistics: Statistics {
        withGeneration { generation in
            Statistics(
                states: generation.automaton.table.count, maskBytes: generation.cache.bytes,
                masksFromCache: generation.cache.hits, masksMade: generation.cache.misses)
        }
    }

    /// About how much memory it takes.
    package var bytes: Int {
        withGeneration { generation in
            generation.automaton.table.count * 1_400 + generation.automaton.arena.count * 200 + generation.cache.bytes
        }
    }
}
