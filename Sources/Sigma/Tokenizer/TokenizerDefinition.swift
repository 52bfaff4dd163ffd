/// Everything that makes a byte-level BPE tokenizer, independent of the file it came from.
///
/// Conversion builds one from `tokenizer.json` or a `.tiktoken` file; the native model file stores it; `Tokenizer` runs it.
package struct TokenizerDefinition: Sendable, Equatable {
    package enum TokenKind: Int32, Sendable {
        /// Bytes that the merges produce.
        case normal = 1
        /// A special token: an id of its own, recognised in text only where specials are asked for.
        case control = 3
        /// An added token that is not special: always recognised in text, as it stands there before normalization.
        case added = 4
        /// A row without a token, or a dummy: never recognised or chosen, decodes to nothing.
        case unused = 5
    }

    /// What a control or added token asks of the text around it, with the meaning that Hugging Face's tokenizers give it.
    package struct Matching: OptionSet, Sendable, Equatable {
        package let rawValue: UInt8
        package init(rawValue: UInt8) { self.rawValue = rawValue }
        /// White space before the token belongs to it (`lstrip`).
        package static let stripsLeft = Matching(rawValue: 1)
        /// White space behind it belongs to it (`rstrip`).
        package static let stripsRight = Matching(rawValue: 2)
        /// It is none between or beside characters of words (`single_word`).
        package static let singleWord = Matching(rawValue: 4)
    }

    /// How pairs merge.
    package enum MergeRule: Sendable, Equatable {
        /// tiktoken: any pair whose concatenation is a token; the lowest id first, the leftmost among equals.
        case byRank
        /// Hugging Face: the listed pairs of token ids in order of priority; `ignoringMerges` takes a piece that is a token as it is.
        case listed([Pair], ignoringMerges: Bool)
    }

    package struct Pair: Sendable, Hashable {
        package var left: Int32
        package var right: Int32
        package init(_ left: Int32, _ right: Int32) {
            self.left = left
            self.right = right
        }
    }

    /// The split pattern before merging.
    package enum SplitPattern: String, Sendable, CaseIterable {
        case gpt2, qwen2, o200k, llama3, smollm

        /// For messages.
        package static let names = "gpt2, qwen2, o200k, llama3 or smollm"
    }

    package enum Normalizer: String, Sendable, CaseIterable { case none, nfc }

    /// Bytes of each id; empty where an id has no token. Count = number of ids known.
    package var tokens: TokenTable
    /// As many as `tokens`.
    package var kinds: [TokenKind]
    package var mergeRule: MergeRule
    package var pattern: SplitPattern
    package var normalizer: Normalizer
    /// `<|endoftext|>` in Sigma; put before raw text only if `addsBos`.
    package var bos: Int32?
    package var eos: Int32?
    package var addsBos: Bool
    /// By id; most tokens ask nothing.
    package var matching: [Int32: Matching]

    package init(
        tokens: TokenTable, kinds: [TokenKind], mergeRule: MergeRule, pattern: SplitPattern, normalizer: Normalizer,
        bos: Int32?, eos: Int32?, addsBos: Bool, matching: [Int32: Matching] = [:]
    ) {
        self.tokens = tokens
        self.kinds = kinds
        self.mergeRule = mergeRule
        self.pattern = pattern
        self.normalizer = normalizer
        self.bos = bos
        self.eos = eos
        self.addsBos = addsBos
        self.matching = matching
    }
}

extension TokenizerDefinition {
    /// The merges as pairs in order of priority. For a vocabulary that merges by rank: every way to cut a token into two others, by the
    /// token's id; other tools, which only know pairs, then merge (nearly always) alike.
    ///
    /// - Throws: `SigmaError` (`.damaged`) for tokens that no tokenizer takes.
    package func pairs() throws(SigmaError) -> [Pair] {
        if case .listed(let pairs, _) = mergeRule { return pairs }
        let index = try TokenIndex(tokens) { kinds[$0] == .normal }
        var pairs: [Pair] = []
        tokens.bytes.withUnsafeBufferPointer { bytes in
            // Cutting is quadratic, and only a hostile vocabulary has tokens of many thousand bytes.
            for id in 0..<tokens.count where kinds[id] == .normal && (2...4096).contains(tokens[id].count) {
                let (start, end) = (tokens.offsets[id], tokens.offsets[id + 1])
                var cuts: [Pair] = []
                for cut in start + 1..<end {
                    guard let left = index.id(of: UnsafeBufferPointer(rebasing: bytes[start..<cut])),
                        let right = index.id(of: UnsafeBufferPointer(rebasing: bytes[cut..<end]))
                    else { continue }
                    cuts.append(Pair(left, right))
                }
                pairs += cuts.sorted { ($0.left, $0.right) < ($1.left, $1.right) }
            }
        }
        return pairs
    }
}
