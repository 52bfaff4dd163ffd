import Sigma

/// Which type a conversion gives to the weights of each tensor.
package struct TypeChoice: Sendable {
    /// The tensors that a name stands for, and their type.
    package struct Rule: Sendable {
        /// A tensor's name as llama.cpp has it (`blk.3.ffn_down_exps.weight`); `*` stands for any characters.
        package let pattern: String
        package let type: WeightType

        package init(pattern: String, type: WeightType) {
            self.pattern = pattern
            self.type = type
        }

        package func matches(_ name: String) -> Bool {
            let parts = pattern.split(separator: "*", omittingEmptySubsequences: false)
            guard parts.count > 1 else { return name == pattern }
            var rest = name[...]
            guard rest.hasPrefix(parts[0]) else { return false }
            rest = rest.dropFirst(parts[0].count)
            // The first place of each part leaves the most for those that follow.
            for part in parts[1..<(parts.count - 1)] where !part.isEmpty {
                guard let place = rest.firstRange(of: part) else { return false }
                rest = rest[place.upperBound...]
            }
            return rest.hasSuffix(parts[parts.count - 1])
        }
    }

    /// Of experts, dense layers, attention and embedding; nil leaves each as the source has it.
    package var type: WeightType?
    /// Of the output head, and of an embedding that is the head too; nil leaves it as the source has it.
    package var outputType: WeightType?
    /// What differs; of several rules that match, the last one counts.
    package var rules: [Rule]

    package init(type: WeightType? = nil, outputType: WeightType? = nil, rules: [Rule] = []) {
        self.type = type
        self.outputType = outputType
        self.rules = rules
    }

    func type(of name: String, isHead: Bool) -> WeightType? {
        rules.last { $0.matches(name) }?.type ?? (isHead ? outputType : type)
    }
}
