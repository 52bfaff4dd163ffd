import SigmaBase

/// Compiled constraints by their text, bounded in number and in bytes; the least recently used goes first.
///
/// Thread-safe. Compiling happens on the caller's thread, outside the lock.
package final class ConstraintCache: @unchecked Sendable {
    private struct Entry {
        var compiled: CompiledConstraint
        var lastUse: Int
    }

    /// A constraint byte by byte: strings are equal where Unicode takes them for the same, and constraints aren't.
    private struct Key: Hashable {
        var kind: Int
        var texts: [ByteKey]
        /// What may come in the place of calls, if there is such an answer.
        var answers: [Key] = []

        init(_ constraint: Constraint) {
            let parts: [String]
            switch constraint {
            case .jsonSchema(let text): (kind, parts) = (0, [text])
            case .json: (kind, parts) = (1, [])
            case .jsonObject: (kind, parts) = (2, [])
            case .regex(let expression): (kind, parts) = (3, [expression])
            case .choice(let texts): (kind, parts) = (4, texts)
            case .calls(let calls), .callsOr(let calls, _):
                kind = calls.allowsSeveral ? 5 : 6
                parts =
                    [calls.form.rawValue]
                    + calls.functions.flatMap { [$0.name, $0.isStrict ? "strict" : "", $0.parameters ?? ""] }
            }
            texts = parts.map { ByteKey(text: $0) }
            if case .callsOr(_, let answer) = constraint { answers = [Key(answer)] }
        }
    }

    private let vocabulary: Vocabulary
    private let limits: ConstraintLimits
    private let countLimit: Int
    private let byteLimit: Int
    private let lock = ConditionLock()
    private var entries: [Key: Entry] = [:]
    private var clock = 0

    /// - Parameter byteLimit: for all constraints together; checked when one is added.
    package init(
        vocabulary: Vocabulary, limits: ConstraintLimits = ConstraintLimits(), countLimit: Int = 64,
        byteLimit: Int = 256 << 20
    ) {
        self.vocabulary = vocabulary
        self.limits = limits
        self.countLimit = countLimit
        self.byteLimit = byteLimit
    }

    /// - Throws: `ConstraintError`, as compiling does.
    package func compiled(_ constraint: Constraint) throws(ConstraintError) -> CompiledConstraint {
        let key = Key(constraint)
        if let known = lock.with({ use(key) }) { return known }
        let made = try CompiledConstraint(constraint, vocabulary: vocabulary, limits: limits)
        return lock.with {
            // Another thread may have been faster: its masks are worth keeping.
            if let known = use(key) { return known }
            clock += 1
            entries[key] = Entry(compiled: made, lastUse: clock)
            evict()
            return made
        }
    }

    package var count: Int { lock.with { entries.count } }

    private func use(_ key: Key) -> CompiledConstraint? {
        clock += 1
        entries[key]?.lastUse = clock
        return entries[key]?.compiled
    }

    private func evict() {
        var bytes = entries.values.reduce(0) { $0 + $1.compiled.bytes }
        while entries.count > countLimit || bytes > byteLimit && entries.count > 1 {
            guard let oldest = entries.min(by: { $0.value.lastUse < $1.value.lastUse }) else { return }
            bytes -= oldest.value.compiled.bytes
            entries[oldest.key] = nil
        }
    }
}
