import Foundation
import Sigma

/// The vocabularies and cases in Tests/Fixtures/tokenizer; `Models/tokenizer_goldens.py` makes them and says what the files hold.
enum TokenizerFixtures {
    static let names = ["o200k", "gpt2", "qwen2", "qwen2-ignoring-merges", "llama3", "smollm"]

    struct Case {
        var recognizingSpecials: Bool
        var text: [UInt8]
        var ids: [Int32]
    }

    static let packageRoot = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    static func definition(_ name: String) throws -> TokenizerDefinition {
        let lines = try lines("\(name).vocab")
        let header = lines[0].split(separator: " ")
        var tokens = TokenTable()
        var kinds: [TokenizerDefinition.TokenKind] = []
        let rows = lines[1...].prefix { !$0.isEmpty }
        for row in rows {
            let fields = row.split(separator: " ", omittingEmptySubsequences: false)
            kinds.append(TokenizerDefinition.TokenKind(rawValue: Int32(fields[0])!)!)
            tokens.append(bytes(hex: fields[1]))
        }
        let pairs = lines[rows.endIndex...].dropFirst().filter { !$0.isEmpty }.map { line in
            let ids = line.split(separator: " ").map { Int32($0)! }
            return TokenizerDefinition.Pair(ids[0], ids[1])
        }
        return TokenizerDefinition(
            tokens: tokens, kinds: kinds,
            mergeRule: header[2] == "byRank" ? .byRank : .listed(pairs, ignoringMerges: header[2] == "ignoring"),
            pattern: TokenizerDefinition.SplitPattern(rawValue: String(header[0]))!,
            normalizer: TokenizerDefinition.Normalizer(rawValue: String(header[1]))!, bos: nil, eos: nil,
            addsBos: false)
    }

    static func tokenizer(_ name: String) throws -> Tokenizer { try Tokenizer(definition(name)) }

    static func cases(_ name: String) throws -> [Case] {
        try lines("\(name).cases").filter { !$0.isEmpty }.map { line in
            let fields = line.split(separator: "\t", omittingEmptySubsequences: false)
            return Case(
                recognizingSpecials: fields[0] == "S", text: bytes(hex: fields[1]),
                ids: fields[2].split(separator: ",").map { Int32($0)! })
        }
    }

    private static func lines(_ file: String) throws -> [Substring] {
        let url = packageRoot.appending(path: "Tests/Fixtures/tokenizer/\(file)")
        return try String(contentsOf: url, encoding: .utf8).split(separator: "\n", omittingEmptySubsequences: false)
    }

    private static func bytes(hex: Substring) -> [UInt8] {
        let digits = hex.utf8.map { UInt8($0 < 0x3a ? $0 - 0x30 : $0 - 0x57) }
        return stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
    }
}
