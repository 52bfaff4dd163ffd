import Foundation
import Sigma
import Testing

/// The real o200k_base vocabulary and its goldens are too big for the repository; where a folder `shared/tokenizer` lies beside the
/// package or above it, they are tested too.
@Suite struct TokenizerO200kTests {
    private static let folder: URL? = {
        var directory = TokenizerFixtures.packageRoot.deletingLastPathComponent()
        while true {
            let folder = directory.appending(path: "shared/tokenizer")
            if FileManager.default.fileExists(atPath: folder.appending(path: "golden.jsonl").path) { return folder }
            if directory.path == "/" { return nil }
            directory = directory.deletingLastPathComponent()
        }
    }()

    private static func tokenizer() throws -> Tokenizer {
        let lines = try Data(contentsOf: folder!.appending(path: "o200k_base.tiktoken")).split(
            separator: UInt8(ascii: "\n"))
        let specials: [Int32: String] = [
            199_999: "<|endoftext|>", 200_000: "<|system|>", 200_001: "<|user|>", 200_002: "<|assistant|>",
            200_003: "<|end|>",
            200_018: "<|endofprompt|>",
        ]
        var tokens = TokenTable()
        var kinds: [TokenizerDefinition.TokenKind] = []
        for (rank, line) in lines.enumerated() {
            let fields = line.split(separator: UInt8(ascii: " "))
            try #require(String(decoding: fields[1], as: UTF8.self) == "\(rank)")
            tokens.append([UInt8](Data(base64Encoded: Data(fields[0]))!))
            kinds.append(.normal)
        }
        for id in Int32(tokens.count)...200_018 {
            tokens.append(Array((specials[id] ?? "").utf8))
            kinds.append(specials[id] == nil ? .unused : .control)
        }
        return try Tokenizer(
            TokenizerDefinition(
                tokens: tokens, kinds: kinds, mergeRule: .byRank, pattern: .o200k, normalizer: .none, bos: 199_999,
                eos: 199_999, addsBos: false))
    }

    private struct Golden: Decodable {
        var text: String
        var ids: [Int32]
        var special: Bool?
    }

    @Test(.enabled(if: folder != nil, "there is no shared/tokenizer/golden.jsonl beside the package or above it"))
    func goldens() throws {
        let tokenizer = try Self.tokenizer()
        let lines = try Data(contentsOf: Self.folder!.appending(path: "golden.jsonl")).split(
            separator: UInt8(ascii: "\n"))
        #expect(lines.count == 142)
        for line in lines {
            let golden = try JSONDecoder().decode(Golden.self, from: Data(line))
            let ids = tokenizer.encode(golden.text, recognizingSpecials: golden.special ?? true)
            #expect(ids == golden.ids, "\(golden.text.debugDescription)")
            #expect(tokenizer.decode(golden.ids, specials: .named) == Array(golden.text.utf8))
        }
    }
}
