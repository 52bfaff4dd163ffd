import Synchronization

/// Byte-level BPE: text to token ids and back.
///
/// Text goes through special tokens (`SpecialTokens`), normalization, the split pattern (`PieceScanner`) and merging
/// (`MergeWorkspace`). Text is bytes: a part that is not UTF-8 is split like an unassigned character and decodes to itself.
///
/// Immutable; any number of threads may use it at once.
package final class Tokenizer: @unchecked Sendable {
    /// Number of ids, those without a token included.
    package let count: Int
    package let bos: Int32?
    package let eos: Int32?
    /// Whether raw text begins with `bos`. `encode` itself never adds it.
    package let addsBos: Bool
    /// [count]: whether an id has a token. The others are never to be sampled.
    package let allowed: [Bool]

    /// Whether a text may be cut behind a line end: no control or added token reaches over one.
    let allowsCuts: Bool

    private let kinds: [TokenizerDefinition.TokenKind]
    private let pattern: TokenizerDefinition.SplitPattern
    private let normalizer: TokenizerDefinition.Normalizer
    private let specials: SpecialTokens
    private let matching: [Int32: TokenizerDefinition.Matching]
    private let index: TokenIndex
    /// nil: by rank.
    private let pairs: PairTable?
    private let ignoresMerges: Bool
    /// [256]; -1 for bytes without a token: they are left out of texts, as Hugging Face's tokenizers do.
    private let byteIDs: UnsafeMutablePointer<Int32>
    private let lacksBytes: Bool
    /// [count] with listed pairs: what merging a token's own bytes gave, once it was tried. 0: not tried, 1: the token, 2: something else.
    private let outcomes: UnsafeMutablePointer<Atomic<UInt8>>

    /// - Throws: `.damaged` for a definition that makes no sense.
    package init(_ definition: TokenizerDefinition) throws(SigmaError) {
        let tokens = definition.tokens
        let kinds = definition.kinds
        let count = tokens.count
        guard kinds.count == count else {
            throw SigmaError(.damaged, "the tokenizer has \(count) tokens, but kinds for \(kinds.count)")
        }
        let offsets = tokens.offsets
        let allowed = (0..<count).map { offsets[$0 + 1] > offsets[$0] && kinds[$0] != .unused }
        for (name, id) in [("bos", definition.bos), ("eos", definition.eos)] {
            guard let id else { continue }
            guard allowed.indices.contains(Int(id)), allowed[Int(id)] else {
                throw SigmaError(.damaged, "the tokenizer's \(name) is id \(id), which is no token")
            }
        }
        guard !definition.addsBos || definition.bos != nil else {
            throw SigmaError(.damaged, "the tokenizer asks for a bos and names none")
        }
        let index = try TokenIndex(tokens) { kinds[$0] == .normal }
        var byteIDs: [Int32] = []
        for byte in UInt8.min...UInt8.max {
            let id = withUnsafePointer(to: byte) { index.id(of: UnsafeBufferPointer(start: $0, count: 1)) }
            // Some vocabularies with listed merges lack bytes that their texts did not have.
            guard id != nil || (definition.mergeRule != .byRank && !(0x20...0x7e).contains(byte)) else {
                throw SigmaError(
                    .damaged,
                    "the vocabulary has no token for the byte \(byte); only byte-level vocabularies are supported")
            }
            byteIDs.append(id ?? -1)
        }
        lacksBytes = byteIDs.contains(-1)
        specials = try SpecialTokens(tokens, kinds: kinds)
        switch definition.mergeRule {
        case .byRank: (pairs, ignoresMerges) = (nil, true)
        case .listed(let list, let ignoringMerges):
            pairs = try PairTable(list, tokens: index, specials: specials)
            ignoresMerges = ignoringMerges
        }
        self.count = count
        self.kinds = kinds
        self.allowed = allowed
        self.index = index
        pattern = definition.pattern
        normalizer = definition.normalizer
        matching = definition.matching
        // A token that takes the line end before it must see it.
        let takesLineEnds = definition.matching.contains { id, matching in
            guard matching.contains(.stripsLeft), tokens.offsets.indices.contains(Int(id)) else { return false }
            let name = Array(tokens[Int(id)])
            return name.withUnsafeBufferPointer { name in
                guard let base = name.baseAddress else { return false }
                let (first, _) = ScalarClasses.shared.classify(base, before: base + name.count)
                return first.has(.letter) || first.has(.number)
            }
        }
        allowsCuts = !takesLineEnds && !specials.hasLineEnd
        (bos, eos, addsBos) = (definition.bos, definition.eos, definition.addsBos)
        self.byteIDs = .allocate(capacity: 256)
        self.byteIDs.initialize(from: byteIDs, count: 256)
        let outcomeCount = ignoresMerges ? 0 : count
        outcomes = .allocate(capacity: outcomeCount)
        for id in 0..<outcomeCount { (outcomes + id).initialize(to: Atomic(0)) }
    }

    deinit {
        byteIDs.deallocate()
        outcomes.deallocate()
    }

    // MARK: Text to ids

    /// The ids of a text. Added tokens are always recognised; control tokens only with `recognizingSpecials`, else they are ordinary
    /// characters. No bos is added.
    package func encode(_ text: String, recognizingSpecials: Bool) -> [Int32] {
        var text = text
        return text.withUTF8 { encode($0, recognizingSpecials: recognizingSpecials) }
    }

    /// The ids of any bytes, at most 2^31 - 1.
    package func encode(_ text: [UInt8], recognizingSpecials: Bool) -> [Int32] {
        text.withUnsafeBufferPointer { encode($0, recognizingSpecials: recognizingSpecials) }
    }

    /// The ids of any bytes, at most 2^31 - 1.
    package func encode(_ text: UnsafeBufferPointer<UInt8>, recognizingSpecials: Bool) -> [Int32] {
        precondition(text.count <= Int32.max)
        var output: [Int32] = []
        output.reserveCapacity(text.count / 4 + 8)
        var workspace = MergeWorkspace()
        var position = 0
        var searched = 0
        while var match = specials.firstMatch(in: text, from: searched, includingControl: recognizingSpecials) {
            searched = match.end
            if !matching.isEmpty, let matching = matching[match.id] {
                guard match.extend(matching, in: text, after: position) else { continue }
            }
            // White space behind a token may hold a token of white space.
            if position < match.start {
                encodeOrdinary(UnsafeBufferPointer(rebasing: text[position..<match.start]), &workspace, &output)
            }
            output.append(match.id)
            position = match.end
        }
        encodeOrdinary(UnsafeBufferPointer(rebasing: text[position...]), &workspace, &output)
        return output
    }

    /// Text between special tokens.
    private func encodeOrdinary(
        _ text: UnsafeBufferPointer<UInt8>, _ workspace: inout MergeWorkspace, _ output: inout [Int32]
    ) {
        if let normalized = normalizer.normalize(text) {
            normalized.withUnsafeBufferPointer { split($0, &workspace, &output) }
        } else {
            split(text, &workspace, &output)
        }
    }

    private func split(
        _ text: UnsafeBufferPointer<UInt8>, _ workspace: inout MergeWorkspace, _ output: inout [Int32]
    ) {
        guard var start = text.baseAddress else { return }
        let end = start + text.count
        let scanner = PieceScanner(pattern, end: end)
        while start < end {
            let pieceEnd = scanner.endOfPiece(at: start)
            append(start, pieceEnd - start, &workspace, &output)
            start = pieceEnd
        }
    }

    /// Appends the tokens of one piece.
    @inline(__always)
    private func append(
        _ piece: UnsafePointer<UInt8>, _ count: Int, _ workspace: inout MergeWorkspace, _ output: inout [Int32]
    ) {
        let tokens = index.view
        let whole = count <= tokens.longest ? tokens.find(piece, count, TokenIndex.Hash.of(piece, count)) : -1
        if whole >= 0 {
            if ignoresMerges || count == 1 { return output.append(whole) }
            switch outcomes[Int(whole)].load(ordering: .relaxed) {
            case 1: return output.append(whole)
            case 2: merge(piece, count, &workspace, &output)
            default:
                let before = output.count
                merge(piece, count, &workspace, &output)
                let isToken = output.count == before + 1 && output[before] == whole
                outcomes[Int(whole)].store(isToken ? 1 : 2, ordering: .relaxed)
            }
        } else {
            merge(piece, count, &workspace, &output)
        }
    }

    @inline(never)
    private func merge(
        _ piece: UnsafePointer<UInt8>, _ count: Int, _ workspace: inout MergeWorkspace, _ output: inout [Int32]
    ) {
        if lacksBytes {
            let known = UnsafeBufferPointer(start: piece, count: count).filter { byteIDs[Int($0)] >= 0 }
            if known.count < count {
                guard !known.isEmpty else { return }
                return known.withUnsafeBufferPointer { merge($0.baseAddress!, $0.count, &workspace, &output) }
            }
        }
        workspace.reserve(count)
        if let pairs {
            workspace.merge(piece, count, byteIDs: byteIDs, by: pairs.ranking, into: &output)
        } else {
            workspace.hashPrefixes(piece, count)
            let ranking = ConcatenationRanking(
                tokens: index.view, piece: piece, prefixHashes: UnsafePointer(workspace.prefixHashes))
            workspace.merge(piece, count, byteIDs: byteIDs, by: ranking, into: &output)
        }
    }

    // MARK: Ids to text

    /// What decoding does with control tokens.
    package enum SpecialsDecoding: Sendable {
        /// Their names are part of the text.
        case named
        /// They are no text.
        case skipped
    }

    /// The bytes that ids stand for. Ids without a token stand for nothing.
    package func decode(_ ids: some Sequence<Int32>, specials: SpecialsDecoding) -> [UInt8] {
        var output: [UInt8] = []
        for id in ids where isAllowed(id) && (specials == .named || kinds[Int(id)] != .control) {
            output.append(contentsOf: index.bytes(of: id))
        }
        return output
    }

    /// A token's bytes, a special token's name; empty for an id without a token. Valid as long as the tokenizer.
    package func bytes(of id: Int32) -> UnsafeBufferPointer<UInt8> {
        isAllowed(id) ? index.bytes(of: id) : UnsafeBufferPointer(start: nil, count: 0)
    }

    // MARK: Questions about ids

    /// Whether the id has a token.
    package func isAllowed(_ id: Int32) -> Bool { id >= 0 && Int(id) < count && allowed[Int(id)] }

    /// Whether the id is a control token.
    package func isControl(_ id: Int32) -> Bool { isAllowed(id) && kinds[Int(id)] == .control }

    /// What a token asks of the text around it.
    package func matching(of id: Int32) -> TokenizerDefinition.Matching { matching[id] ?? [] }

    /// The id of the control or added token of that name.
    package func idOfSpecial(named name: String) -> Int32? {
        var name = name
        return name.withUTF8 { specials.id(of: $0) }
    }
}
