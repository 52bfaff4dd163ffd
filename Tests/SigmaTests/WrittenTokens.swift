import Sigma

/// A vocabulary of all bytes, some texts that end in the middle of what matters, and a token that ends an answer.
struct WrittenTokens: Sendable {
    let tokenizer: Tokenizer
    let end: Int32

    init(_ texts: [String]) throws {
        var table = TokenTable((UInt8.min...UInt8.max).map { [$0] } + texts.map { Array($0.utf8) })
        end = Int32(table.count)
        table.append(Array("<|end|>".utf8))
        var kinds = [TokenizerDefinition.TokenKind](repeating: .normal, count: table.count)
        kinds[Int(end)] = .control
        tokenizer = try Tokenizer(
            TokenizerDefinition(
                tokens: table, kinds: kinds, mergeRule: .byRank, pattern: .o200k, normalizer: .none, bos: nil, eos: end,
                addsBos: false))
    }

    func constraints() -> AnswerConstraints {
        AnswerConstraints(tokenizer, choosable: TokenMask(all: tokenizer.count), stopTokens: [end])
    }

    func bytes(_ id: Int32) -> [UInt8] { Array(tokenizer.bytes(of: id)) }
}
