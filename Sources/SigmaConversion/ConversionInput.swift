import Sigma
import SystemLibrary

/// What a conversion starts from, opened and understood: a checkpoint folder, a plain GGUF file, or a native model file.
package struct ConversionInput: Sendable {
    package let configuration: ModelConfiguration
    /// As the source calls it, for people.
    package let architecture: String
    package let name: String
    package let weights: any WeightSources
    /// Whether weights that no type was asked for keep theirs.
    package let keepsTypes: Bool
    /// Nil if the source has no tokenizer.
    package let tokenizer: TokenizerDefinition?
    package let chatFormat: ChatFormat
    package let warnings: [String]
    /// What is read, and must not be written over.
    package let files: [String]
    /// Fails if a file was truncated while it was read.
    let checkIntact: @Sendable () throws -> Void
    /// Compares the source's own checksums, where it has some; returns at once where it has none.
    let verify: @Sendable ((Double) -> Bool) throws -> Void

    /// - Throws: `SigmaError`: `.noInput` for what is missing, `.damaged` for what is not what it should be or asks for something that we
    ///   don't compute, `.usage` for overrides that mean nothing here.
    package init(_ path: String, overrides: Overrides) throws {
        do {
            guard let file = try Self.gguf(path) else {
                try self.init(checkpoint: Checkpoint(folder: path), overrides)
                return
            }
            try file.checkIsModel()
            let keys = KeyReader(file: file)
            let isNative =
                try keys.string("general.architecture") == ModelFileFormat.architecture
                && keys.has(ModelFileFormat.Key.version)
            try overrides.checkForFile(isNative: isNative)
            if isNative {
                try self.init(native: ModelFile(path: path), overrides)
            } else {
                try self.init(plain: GGUFParts(file), overrides)
            }
        } catch let error as SigmaError where error.kind == .damaged { throw error.inFile(path) }
    }

    private init(checkpoint: Checkpoint, _ overrides: Overrides) throws {
        let configuration = try CheckpointConfiguration(checkpoint, overrides: overrides)
        let tokenizer = try TokenizerImport(checkpoint.folder, configuration, overrides: overrides)
        self.configuration = configuration.model
        architecture = configuration.architecture
        name = overrides.text("name") ?? Self.name(of: checkpoint)
        weights = CheckpointWeights(checkpoint, configuration)
        keepsTypes = false
        self.tokenizer = tokenizer.definition
        chatFormat = tokenizer.chatFormat
        warnings = checkpoint.warnings + configuration.warnings + tokenizer.warnings
        files =
            checkpoint.shards.map(\.file.path) + tokenizer.files
            + ["/config.json", "/generation_config.json", "/model.safetensors.index.json"].map {
                checkpoint.folder + $0
            }
        checkIntact = checkpoint.checkIntact
        verify = { _ in }
    }

    private init(plain parts: GGUFParts, _ overrides: Overrides) throws {
        let file = parts.first
        let keys = KeyReader(file: file)
        let configuration = try GGUFConfiguration(parts, overrides: overrides)
        let vocabularySize = configuration.model.vocabularySize
        let tokenizer = try GGUFTokenizer(file, vocabularySize: vocabularySize, overrides: overrides)
        let chat = try ChatImport(
            .gguf(file, configuration), tokenizer.definition, vocabularySize: vocabularySize, overrides: overrides)
        let weights = GGUFWeights(parts, configuration)
        try weights.checkExpertCount(configuration.model)
        self.configuration = configuration.model
        let sourceKey = ModelFileFormat.Key.sourceArchitecture
        architecture = keys.has(sourceKey) ? try keys.string(sourceKey) : configuration.architecture
        name = overrides.text("name") ?? Self.name(of: keys)
        self.weights = weights
        keepsTypes = true
        self.tokenizer = tokenizer.definition
        chatFormat = chat.format
        warnings = configuration.warnings + tokenizer.warnings + chat.warnings
        files = parts.paths
        checkIntact = parts.checkIntact
        verify = { _ in }
    }

    private init(native file: ModelFile, _ overrides: Overrides) throws {
        let keys = KeyReader(file: file.gguf)
        configuration = file.configuration
        let sourceKey = ModelFileFormat.Key.sourceArchitecture
        architecture = keys.has(sourceKey) ? try keys.string(sourceKey) : ModelFileFormat.architecture
        name = overrides.text("name") ?? file.name
        weights = NativeWeights(file)
        keepsTypes = true
        var tokenizer = try file.tokenizerDefinition()
        if let addsBos = try overrides.bool("tokenizer.add_bos") { tokenizer?.addsBos = addsBos }
        self.tokenizer = tokenizer
        let own = file.chatFormat
        let chat = try ChatImport(
            ChatImport.Facts(standard: own ?? ChatImport.Facts.usual(.sigma), isStated: own != nil), tokenizer,
            vocabularySize: configuration.vocabularySize, overrides: overrides)
        chatFormat = chat.format
        warnings = chat.warnings
        files = [file.path]
        checkIntact = file.checkIntact
        verify = { progress in try file.verify(progress: progress) }
    }

    /// Nil if the path is not a GGUF file.
    private static func gguf(_ path: String) throws -> GGUFFile? {
        try checkPath(path)
        var status = stat()
        guard stat(path, &status) == 0, status.st_mode & S_IFMT != S_IFDIR else { return nil }
        let file = try MappedFile(path: path)
        guard file.bytes.count >= 4, UInt32(littleEndian: file.bytes.loadUnaligned(as: UInt32.self)) == GGUFFile.magic
        else { return nil }
        return try GGUFFile(file: file)
    }

    // MARK: names

    /// What the config calls the model (without an owner), else the folder's name.
    private static func name(of checkpoint: Checkpoint) -> String {
        if let name = checkpoint.config["_name_or_path"]?.string.flatMap(lastPart) { return name }
        if let resolved = realpath(checkpoint.folder, nil) {
            defer { free(resolved) }
            return lastPart(String(cString: resolved)) ?? "model"
        }
        return lastPart(checkpoint.folder) ?? "model"
    }

    private static func name(of keys: KeyReader) -> String {
        let key = ModelFileFormat.Key.name
        // A name for people: one that cannot be shown is none.
        if let name = keys.file[key]?.string { return name }
        let name = lastPart(keys.file.file.path) ?? "model"
        return name.hasSuffix(".gguf") ? String(name.dropLast(5)) : name
    }

    private static func lastPart(_ text: String) -> String? {
        guard let part = text.split(separator: "/").last, part != ".", part != ".." else { return nil }
        return String(part)
    }
}
