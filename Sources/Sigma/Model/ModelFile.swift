import SystemLibrary

/// A native model file, mapped: what it says about the model, and its weights as views into the mapping.
///
/// Opening reads the header and the small vectors (norms, biases) and checks everything but the records' checksums; a model of any
/// size opens in milliseconds. The weights' memory is valid as long as the object lives.
package final class ModelFile: Sendable {
    package let gguf: GGUFFile
    package let configuration: ModelConfiguration
    package let weights: ModelWeights
    package let chatFormat: ChatFormat?
    /// The source's name.
    package let name: String
    let checksums: GGUFArray

    package var path: String { gguf.file.path }
    /// The file's size.
    package var byteCount: Int { gguf.file.bytes.count }
    /// CRC32C of the header, which holds every record's own: it tells apart any two model files.
    package var headerChecksum: UInt32 {
        // Opening has compared it.
        UInt32(truncatingIfNeeded: gguf[ModelFileFormat.Key.headerChecksum]?.integer ?? 0)
    }
    /// Records that have a checksum of their own: tensors, and experts where a tensor holds several.
    package var recordCount: Int { checksums.count }

    /// - Throws: `SigmaError`: `.noInput` where there is no such file; `.damaged` for anything that is not an intact native model file,
    ///   with the command that makes one where that is possible.
    package init(path: String) throws {
        let mapped = try Self.map(path)
        gguf = try GGUFFile(file: mapped)
        // The small vectors lie between the experts, which must not come with them.
        let data = gguf.dataOffset..<mapped.bytes.count
        mapped.setScattered(true, data)
        defer { mapped.setScattered(false, data) }
        try Self.checkKind(gguf)
        let keys = KeyReader(file: gguf)
        configuration = try ModelFileMetadata.configuration(of: gguf)
        weights = try ModelFileWeights(gguf, configuration).weights()
        chatFormat = try ModelFileMetadata.chatFormat(of: gguf, vocabularySize: configuration.vocabularySize)
        name = keys.has(ModelFileFormat.Key.name) ? try keys.string(ModelFileFormat.Key.name) : ""
        checksums = try Self.checksums(keys, expertCount: configuration.expertCount)
        // Last, so that structural damage is named by what it is.
        try Self.checkHeader(keys)
        try mapped.checkIntact()
    }

    /// The tokenizer, or nil if the file has none. Parsed at each call (some 10 ms for 200,000 tokens).
    ///
    /// - Throws: `SigmaError` (`.damaged`) naming the key.
    package func tokenizerDefinition() throws -> TokenizerDefinition? {
        try ModelFileTokenizer.definition(of: gguf, vocabularySize: configuration.vocabularySize)
    }

    /// - Throws: `SigmaError` (`.inputOutput`) if the file was truncated or could not be read since it was opened.
    package func checkIntact() throws { try gguf.file.checkIntact() }

    // MARK: checks of opening

    /// Maps the file, or says what to do about what was found instead.
    private static func map(_ path: String) throws -> MappedFile {
        try checkPath(path)
        var status = stat()
        if stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR {
            let isCheckpoint = access(path + "/config.json", F_OK) == 0
            throw SigmaError(
                .damaged, "expected a native model file, found a \(isCheckpoint ? "checkpoint " : "")folder",
                path: path,
                remedy: isCheckpoint ? conversionRemedy(input: path) : "Name a model file that sigma-convert made.")
        }
        let file = try MappedFile(path: path)
        // A safetensors file: the length of a JSON text, then the text.
        let bytes = file.bytes
        if bytes.count > 9, bytes[8] == UInt8(ascii: "{"),
            UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self)) <= UInt64(bytes.count - 8)
        {
            throw SigmaError(
                .damaged, "expected a native model file, found a safetensors file", path: path,
                remedy: conversionRemedy(input: splitPath(path).folder))
        }
        return file
    }

    /// The command that makes a native model file of `input`.
    private static func conversionRemedy(input: String) -> Remedy {
        var name = input
        while name.count > 1, name.hasSuffix("/") { name.removeLast() }
        name = name.split(separator: "/").last.map(String.init) ?? "model"
        if name == "." || name == ".." { name = "model" }
        let output = name.hasSuffix(".gguf") ? String(name.dropLast(5)) + "-sigma.gguf" : name + ".gguf"
        return "Convert it first: sigma-convert \(shellQuoted(input)) \(shellQuoted(output))"
    }

    /// That the file is ours, and of a version that we read.
    private static func checkKind(_ gguf: GGUFFile) throws {
        let path = gguf.file.path
        try gguf.checkIsModel()
        let keys = KeyReader(file: gguf)
        let architecture = try keys.string("general.architecture")
        guard architecture == ModelFileFormat.architecture else {
            throw SigmaError(
                .damaged, "expected a native model file, found a GGUF file of architecture '\(architecture)'",
                path: path,
                item: "general.architecture", remedy: conversionRemedy(input: path))
        }
        guard keys.has(ModelFileFormat.Key.version) else {
            throw SigmaError(
                .damaged, "expected a native model file, found a GGUF file with plain tensors", path: path,
                item: ModelFileFormat.Key.version, remedy: conversionRemedy(input: path))
        }
        let version = try keys.integer(ModelFileFormat.Key.version)
        guard version == Int(ModelFileFormat.version) else {
            throw SigmaError(
                .damaged, "expected format version \(ModelFileFormat.version), found \(version)", path: path,
                item: ModelFileFormat.Key.version,
                remedy:
                    "\(version > Int(ModelFileFormat.version) ? "Update Sigma, or convert" : "Convert") the checkpoint again: sigma-convert CHECKPOINT_FOLDER \(shellQuoted(path))"
            )
        }
        guard gguf.version == 3 else {
            throw SigmaError(.damaged, "expected GGUF version 3, found 2", path: path, offset: 4)
        }
        guard gguf.alignment == ModelFileFormat.alignment else {
            throw keys.failure(
                "general.alignment", "expected \(ModelFileFormat.alignment), found \(gguf.alignment)")
        }
    }

    private static func checksums(_ keys: KeyReader, expertCount: Int) throws -> GGUFArray {
        let key = ModelFileFormat.Key.checksums
        let expected = keys.file.tensors.reduce(0) { $0 + (ModelFileFormat.isExperts($1.name) ? expertCount : 1) }
        guard let array = keys.file[key]?.array, array.kind == .uint32, array.count == expected else {
            throw keys.failure(key, "expected an array of \(expected) uint32, one for each record")
        }
        return array
    }

    private static func checkHeader(_ keys: KeyReader) throws {
        let key = ModelFileFormat.Key.headerChecksum
        let expected = try keys.integer(key)
        guard case .integer(.uint32, _) = keys.file[key]! else { throw keys.failure(key, "expected a uint32") }
        let header = UnsafeRawBufferPointer(rebasing: keys.file.file.bytes[..<keys.file.dataOffset])
        let found = ModelFileFormat.headerChecksum(header, hole: keys.file.entry(key)!.offset)
        guard Int(found) == expected else {
            throw SigmaError(
                .damaged,
                "the header is damaged: expected checksum \(String(expected, radix: 16)), found \(String(found, radix: 16))",
                path: keys.file.file.path, item: key,
                remedy: "Copy the file again from its source, or convert the checkpoint again.")
        }
    }
}

extension ModelFileFormat {
    static func isExperts(_ name: String) -> Bool { name.hasPrefix("blk.") && name.hasSuffix("." + experts) }
}
