import Sigma

/// The file of an importance matrix: a GGUF file; `docs/quantization.md` specifies it.
extension ImportanceMatrix {
    private static let architecture = "sigma-importance"
    private static let version: UInt32 = 1

    private enum Key {
        static let version = "sigma_importance.format_version"
        static let tokens = "sigma_importance.token_count"
        /// Of every group of every tensor, in the tensors' order.
        static let counts = "sigma_importance.counts"
        /// CRC-32C of the tensors' values, one after the other.
        static let checksum = "sigma_importance.checksum"
        static let expertsPerToken = "sigma_importance.expert_used_count_per_layer"
    }

    /// What must be equal for the matrix to belong to a model.
    private static func shape(_ c: ModelConfiguration) -> [(key: String, what: String, value: Int)] {
        [
            ("block_count", "layers", c.layerCount), ("embedding_length", "a hidden size of", c.hiddenSize),
            ("attention_length", "query heads as wide as", c.queryWidth),
            ("vocab_size", "a vocabulary of", c.vocabularySize),
            ("expert_count", "experts a layer:", c.expertCount),
            ("expert_feed_forward_length", "experts as wide as", c.expertIntermediateSize),
            ("expert_shared_count", "shared experts:", c.sharedExpertCount),
            ("feed_forward_length", "dense layers as wide as", c.denseIntermediateSize),
        ].map { ("sigma_importance." + $0.0, $0.1, $0.2) }
    }

    /// Writes the file: whole or not at all.
    ///
    /// - Throws: `SigmaError` as `AtomicFile`.
    package func write(to path: String, for configuration: ModelConfiguration) throws {
        var header = GGUFWriter(architecture: Self.architecture, alignment: 64)
        header.set("general.name", modelName)
        header.set(Key.version, Self.version)
        header.set(Key.tokens, UInt64(tokenCount))
        for (key, _, value) in Self.shape(configuration) { header.set(key, UInt32(value)) }
        header.set(Key.expertsPerToken, configuration.expertsPerToken.map(UInt32.init))
        header.set(Key.counts, entries.flatMap(\.counts))
        for entry in entries {
            header.addTensor(
                entry.name, dimensions: entry.groups == 1 ? [entry.width] : [entry.width, entry.groups], type: .f32)
        }
        var crc: UInt32 = 0
        for entry in entries {
            crc = entry.means.withUnsafeBytes { CRC32C.checksum($0, continuing: crc) }
        }
        header.set(Key.checksum, crc)
        let layout = header.layout()
        let file = try AtomicFile(path: path, size: layout.fileSize)
        try layout.header.withUnsafeBytes { try file.write($0, at: 0) }
        for (entry, offset) in zip(entries, layout.tensorOffsets) {
            try entry.means.withUnsafeBytes { try file.write($0, at: offset) }
        }
        try file.finish(size: layout.fileSize)
    }

    private static func foreign(_ path: String) -> SigmaError {
        SigmaError(
            .damaged, "expected an importance matrix of sigma-eval's, found one of llama.cpp's, which is not read",
            path: path, remedy: "Make one with: sigma-eval imatrix --model MODEL TEXT_FILE")
    }

    /// llama.cpp's form before it used GGUF: the number of entries, then each one's name with its length before it.
    private static func isLegacyFile(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard bytes.count >= 12 else { return false }
        let count = Int32(littleEndian: bytes.loadUnaligned(as: Int32.self))
        let length = Int(Int32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4, as: Int32.self)))
        guard (1...1 << 20).contains(count), (5...256).contains(length), 8 + length <= bytes.count else { return false }
        let name = bytes[8..<8 + length]
        return name.allSatisfy { (0x21...0x7e).contains($0) }
            && ["blk.", "output", "token_embd", "dec.", "enc."].contains { name.starts(with: $0.utf8) }
    }

    /// Reads a file, which must be of a model of this shape.
    ///
    /// - Throws: `SigmaError`: `.noInput` where there is no such file, `.damaged` for anything else that is wrong with it.
    package init(path: String, for configuration: ModelConfiguration) throws {
        let mapped = try MappedFile(path: path)
        if Self.isLegacyFile(mapped.bytes) { throw Self.foreign(path) }
        let gguf = try GGUFFile(file: mapped)
        if gguf.purpose == .importance { throw Self.foreign(path) }
        let keys = KeyReader(file: gguf)
        let found = try keys.string("general.architecture")
        guard found == Self.architecture else {
            throw SigmaError(
                .damaged, "expected an importance matrix ('\(Self.architecture)'), found a GGUF file of '\(found)'",
                path: path,
                remedy: "Make one with sigma-eval imatrix.")
        }
        let version = try keys.integer(Key.version)
        guard version == Self.version else {
            throw keys.failure(Key.version, "expected version \(Self.version), found \(version)")
        }
        for (key, what, expected) in Self.shape(configuration) {
            let found = try keys.integer(key)
            guard found == expected else {
                throw SigmaError(
                    .damaged, "it was made of another model: \(what) \(found), and this model has \(expected)",
                    path: path,
                    item: key, remedy: "Make one of this model with sigma-eval imatrix.")
            }
        }
        guard try keys.integers(Key.expertsPerToken) == configuration.expertsPerToken else {
            throw SigmaError(
                .damaged, "it was made of another model: its layers choose other numbers of experts", path: path,
                item: Key.expertsPerToken, remedy: "Make one of this model with sigma-eval imatrix.")
        }
        let tokens = try keys.integer(Key.tokens)
        var entries = Self.blank(configuration)
        let counts = try keys.integers(Key.counts)
        guard tokens >= 0, counts.count == entries.reduce(0, { $0 + $1.groups }),
            counts.allSatisfy({ (0...Int(UInt32.max)).contains($0) })
        else { throw keys.failure(Key.counts, "expected one count for each input of the model, found \(counts.count)") }
        var crc: UInt32 = 0
        var place = 0
        for i in entries.indices {
            let entry = entries[i]
            guard let tensor = gguf.tensor(entry.name) else {
                throw SigmaError(.damaged, "the tensor is missing", path: path, item: entry.name)
            }
            guard tensor.type == .f32,
                tensor.dimensions == (entry.groups == 1 ? [entry.width] : [entry.width, entry.groups])
            else {
                throw SigmaError(
                    .damaged,
                    "expected \(entry.groups) x \(entry.width) F32, found \(tensor.dimensions) \(tensor.type.name)",
                    path: path, item: entry.name, offset: UInt64(tensor.headerOffset))
            }
            let bytes = gguf.bytes(tensor)
            crc = CRC32C.checksum(bytes, continuing: crc)
            for j in 0..<entry.means.count {
                let mean = Float(bitPattern: bytes.loadUnaligned(fromByteOffset: 4 * j, as: UInt32.self))
                guard mean.isFinite, mean >= 0 else {
                    throw SigmaError(
                        .damaged, "expected means of squares, found \(mean)", path: path, item: entry.name,
                        offset: UInt64(tensor.offset + 4 * j))
                }
                entries[i].means[j] = mean
            }
            for group in 0..<entry.groups { entries[i].counts[group] = UInt32(counts[place + group]) }
            place += entry.groups
        }
        try gguf.file.checkIntact()
        guard try keys.integer(Key.checksum) == Int(crc) else {
            throw SigmaError(
                .damaged, "the data is damaged: its checksum is \(String(crc, radix: 16))", path: path,
                item: Key.checksum,
                remedy: "Make it again with sigma-eval imatrix.")
        }
        self.init(modelName: try keys.string("general.name"), tokenCount: tokens, entries: entries)
    }
}
