/// A constraint that is ready for a model's answers. Shared by all answers under it, on any thread.
package struct TokenConstraint: Sendable {
    let compiled: CompiledConstraint
    let tokens: AnswerVocabulary
    /// Whether line ends between the thinking and the answer are no part of the answer: they are one where the constraint's texts may begin with
    /// them.
    package let dropsFirstLineEnds: Bool

    package init(_ compiled: CompiledConstraint, _ tokens: AnswerVocabulary) {
        self.compiled = compiled
        self.tokens = tokens
        dropsFirstLineEnds = ![0x0A, 0x0D].contains { (byte: UInt8) in
            var state = compiled.begin()
            return state.advance(CollectionOfOne(byte))
        }
    }
}
