import Sigma

/// The tokenizer and the chat format of a checkpoint folder, from whichever files it has.
package struct TokenizerImport: Sendable {
    /// Nil if the folder has no tokenizer.
    package let definition: TokenizerDefinition?
    package let chatFormat: ChatFormat
    package let warnings: [String]
    /// What was read.
    package let files: [String]

    /// - Throws: `SigmaError`: `.damaged` for files that are not what they should be or ask for a tokenizer that we don't have.
    package init(_ folder: String, _ configuration: CheckpointConfiguration, overrides: Overrides) throws {
        let settings = try TokenizerSettings(folder: folder)
        var warnings: [String] = []
        var files = settings.files
        let jsonPath = folder + "/tokenizer.json"
        let names = try CheckpointFolder.names(in: folder)
        let tiktokenFiles = names.filter { $0.hasSuffix(".tiktoken") }
        var definition: TokenizerDefinition?
        if isPresent(jsonPath) {
            if let other = tiktokenFiles.first { warnings.append("tokenizer.json is used; \(other) is there too") }
            if overrides.text("tokenizer.specials") != nil {
                throw SigmaError(
                    .usage, "tokenizer.specials is for .tiktoken files; here tokenizer.json names the specials")
            }
            let file = try TokenizerJSON(path: jsonPath)
            files.append(jsonPath)
            definition = try file.definition(settings, configuration)
        } else if tiktokenFiles.count > 1 {
            throw SigmaError(
                .damaged, "expected one .tiktoken file, found \(tiktokenFiles.joined(separator: ", "))", path: folder)
        } else if let name = tiktokenFiles.first, configuration.family.readsTiktoken {
            let path = folder + "/" + name
            files.append(path)
            definition = try TiktokenFile(path: path).definition(settings, configuration, overrides)
        }
        if var found = definition {
            if let addsBos = try overrides.bool("tokenizer.add_bos") { found.addsBos = addsBos }
            if found.addsBos, found.bos == nil {
                throw SigmaError(
                    .damaged, "the tokenizer asks for a beginning-of-text token but names none", path: folder,
                    remedy: "To leave it out: --override tokenizer.add_bos=false")
            }
            definition = try Self.fitted(found, rows: configuration.model.vocabularySize, path: files.last!)
        } else {
            warnings.append(Self.nothingRead(names, folder))
        }
        let chat = try ChatImport(
            .checkpoint(folder, settings, configuration), definition,
            vocabularySize: configuration.model.vocabularySize, overrides: overrides)
        self.definition = definition
        chatFormat = chat.format
        self.warnings = warnings + chat.warnings
        self.files = files
    }

    /// The definition without ids that the embedding has no rows for, as long as no token is lost.
    private static func fitted(_ definition: TokenizerDefinition, rows: Int, path: String) throws -> TokenizerDefinition
    {
        guard definition.tokens.count > rows else { return definition }
        if let lost = (rows..<definition.tokens.count).first(where: { definition.kinds[$0] != .unused }) {
            let name = String(decoding: definition.tokens[lost], as: UTF8.self)
            throw SigmaError(
                .damaged, "token \(lost), '\(name)', has no row in the embedding, which has \(rows)", path: path)
        }
        var result = definition
        result.tokens = TokenTable((0..<rows).map { Array(definition.tokens[$0]) })
        result.kinds.removeSubrange(rows...)
        result.matching = result.matching.filter { $0.key < rows }
        return result
    }

    /// A folder without a tokenizer that we read, and what makes one of what is there.
    private static func nothingRead(_ names: [String], _ folder: String) -> String {
        let others = names.filter {
            ["vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "vocab.txt"].contains($0)
                || $0.hasSuffix(".tiktoken")
        }
        let consequence = "the model will only take and give token ids"
        if others.isEmpty { return "no tokenizer.json and no .tiktoken file: \(consequence)" }
        let place = "'" + folder.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "\\'") + "'"
        return
            "no tokenizer.json; \(others.joined(separator: ", ")) alone \(others.count == 1 ? "is" : "are") not read: \(consequence)."
            + " To make tokenizer.json, in Python: from transformers import AutoTokenizer;"
            + " AutoTokenizer.from_pretrained(\(place)).save_pretrained(\(place))"
    }
}
