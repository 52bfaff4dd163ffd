/// A constraint that is ready for a model's answers. Shared by all answers under it, on any thread.
package struct TokenConstraint: Sendable {
    /// What of an answer, behind its thinking, is constrained.
    package enum Reach: Sendable {
        case wholeAnswer
        /// All from what shows a call on. What stands before it is free text.
        case calls
    }

    /// Nil: nothing can follow what shows a call, so it must not come.
    let compiled: CompiledConstraint?
    let tokens: AnswerVocabulary
    package let reach: Reach
    /// What shows a call.
    package let opening: CallOpening
    /// Whether line ends between the thinking and the answer are no part of the answer: they are one where the constraint's texts may begin with
    /// them.
    package let dropsFirstLineEnds: Bool

    package init(_ compiled: CompiledConstraint, _ tokens: AnswerVocabulary, reach: Reach = .wholeAnswer) {
        self.compiled = compiled
        self.tokens = tokens
        self.reach = reach
        opening = compiled.constraint.calls?.opening ?? CallOpening(form: .taggedJSON, names: [])
        dropsFirstLineEnds =
            reach == .calls
            || ![0x0A, 0x0D].contains { (byte: UInt8) in
                var state = compiled.begin()
                return state.advance(CollectionOfOne(byte))
            }
    }

    /// Of calls in tagged XML: what the function's parameters can be.
    package func parameters(of function: String) -> FunctionParameters {
        compiled?.parameters(of: function) ?? FunctionParameters()
    }

    /// Free text without any opening of a call.
    init(withoutCalls opening: CallOpening, _ tokens: AnswerVocabulary) {
        compiled = nil
        self.opening = opening
        self.tokens = tokens
        reach = .calls
        dropsFirstLineEnds = true
    }
}
