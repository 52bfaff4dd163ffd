import ArgumentParser
import Sigma
import SigmaCommand

struct TokenizeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tokenize",
        abstract: "Writes a file's token ids, or the bytes of token ids.",
        discussion: """
            The file's bytes are encoded as they are, without bos, and the ids written as a JSON array. --decode reads such an array and \
            writes the bytes, with nothing added.
            """)

    @Argument(help: "A file, or - for standard input.")
    var file: String

    @OptionGroup var model: ModelOption

    @Flag(help: "Recognise special tokens, such as <|end|>, in the file.")
    var special = false

    @Flag(help: "The file is a JSON array of ids: write their bytes.")
    var decode = false

    func run() throws {
        guard !(special && decode) else {
            throw usageError("--special is for encoding; --decode always writes the names of special tokens")
        }
        let bytes = try InputFile.bytes(of: file)
        let path = try model.path
        let name = InputFile.name(of: file)
        // Only the header is read: the engine is not needed.
        let modelFile = try ModelFile(path: path)
        guard let definition = try modelFile.tokenizerDefinition() else {
            throw SigmaError(
                .damaged, "the model file has no tokenizer", path: path,
                remedy: "Convert a checkpoint folder that has its tokenizer files.")
        }
        let tokenizer = try Tokenizer(definition)
        if decode {
            let ids = try ids(in: bytes, path: name, count: modelFile.configuration.vocabularySize)
            try tokenizer.decode(ids, specials: .named).withUnsafeBytes { try StandardOutput.write($0) }
        } else {
            var json = JSONWriter()
            json.array { for id in tokenizer.encode(bytes, recognizingSpecials: special) { $0.value(id) } }
            try StandardOutput.writeJSON(json.text + "\n")
        }
    }

    private func ids(in bytes: [UInt8], path: String, count: Int) throws -> [Int32] {
        let value = try bytes.withUnsafeBytes { try JSONValue.parse($0, path: path) }
        guard let items = value.array else {
            throw SigmaError(.damaged, "expected a JSON array of token ids, found \(value.kind)", path: path)
        }
        return try items.enumerated().map { index, item in
            guard let id = item.integer, id >= 0, id < count else {
                throw SigmaError(
                    .damaged, "expected a token id from 0 to \(count - 1), found \(item.kind)", path: path,
                    item: "[\(index)]")
            }
            return Int32(id)
        }
    }
}
