/// A constraint that is ready for a model's answers. Shared by all answers under it, on any thread.
package struct TokenConstraint: Sendable {
    /// What of an answer, behind its thinking, is constrained.
    package enum Reach: Sendable {
        case wholeAnswer
        /// All from the first `<tool_call>` on. What stands before it is free text.
        case calls
    }

    /// What stands around a call.
    static let callTags = (open: FunctionCalls.openTag, close: FunctionCalls.closeTag)

    /// Nil: nothing can follow the tag, so it must not come.
    let compiled: CompiledConstraint?
    let tokens: AnswerVocabulary
    package let reach: Reach
    /// Whether line ends between the thinking and the answer are no part of the answer: they are one where the constraint's texts may begin with
    /// them.
    package let dropsFirstLineEnds: Bool

    package init(_ compiled: CompiledConstraint, _ tokens: AnswerVocabulary, reach: Reach = .wholeAnswer) {
        self.compiled = compiled
        self.tokens = tokens
        self.reach = reach
        dropsFirstLineEnds =
            reach == .calls
            || ![0x0A, 0x0D].contains { (byte: UInt8) in
                var state = compiled.begin()
                return state.advance(CollectionOfOne(byte))
            }
    }

    /// Free text without any `<tool_call>`.
    init(withoutCalls tokens: AnswerVocabulary) {
        compiled = nil
        self.tokens = tokens
        reach = .calls
        dropsFirstLineEnds = true
    }
}
