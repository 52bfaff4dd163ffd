import Sigma

/// Keys of a GGUF file's architecture, some of which may be absent.
package struct GGUFMetadata {
    let keys: KeyReader
    let family: any ModelFamily

    var architecture: String { family.ggufArchitecture }

    /// - Throws: `SigmaError` (`.damaged`) for an architecture that we don't compute.
    init(_ file: GGUFFile) throws {
        keys = KeyReader(file: file)
        let name = try keys.string("general.architecture")
        guard let family = ModelFamilies.all.first(where: { $0.ggufArchitecture == name }) else {
            let known = ModelFamilies.all.map(\.ggufArchitecture).joined(separator: " or ")
            throw keys.failure(
                "general.architecture", "expected a model of architecture \(known), found '\(name)'")
        }
        self.family = family
    }

    private func full(_ key: String) -> String { architecture + "." + key }
    func failure(_ key: String, _ message: String) -> SigmaError { keys.failure(full(key), message) }

    func integer(_ key: String) throws -> Int { try keys.integer(full(key)) }
    func float(_ key: String) throws -> Float { try keys.float(full(key)) }
    func optionalInteger(_ key: String) throws -> Int? { keys.has(full(key)) ? try keys.integer(full(key)) : nil }
    func optionalFloat(_ key: String) throws -> Float? { keys.has(full(key)) ? try keys.float(full(key)) : nil }
    func optionalBool(_ key: String) throws -> Bool? { keys.has(full(key)) ? try keys.bool(full(key)) : nil }
    func optionalString(_ key: String) throws -> String? { keys.has(full(key)) ? try keys.string(full(key)) : nil }
    func optionalIntegers(_ key: String) throws -> [Int]? { keys.has(full(key)) ? try keys.integers(full(key)) : nil }

    /// One number, or an array with one for each layer.
    func list(_ key: String, layerCount: Int) throws -> [Int] {
        guard keys.file[full(key)]?.array != nil else { return Array(repeating: try integer(key), count: layerCount) }
        let list = try keys.integers(full(key))
        guard list.count == layerCount else {
            throw failure(key, "expected \(layerCount) entries, one for each layer, found \(list.count)")
        }
        return list
    }
    /// One number, or an array that says the same for each layer.
    func uniform(_ key: String, layerCount: Int) throws -> Int {
        let list = try list(key, layerCount: layerCount)
        guard let other = list.first(where: { $0 != list[0] }) else { return list[0] }
        throw failure(key, "expected the same number for all layers, found \(list[0]) and \(other)")
    }
    func optionalUniform(_ key: String, layerCount: Int) throws -> Int? {
        keys.has(full(key)) ? try uniform(key, layerCount: layerCount) : nil
    }

    /// What the experts' weights are multiplied with. 0 is llama.cpp's own mark for nothing.
    func expertScale() throws -> Float {
        let scale = try optionalFloat("expert_weights_scale") ?? 1
        return scale == 0 ? 1 : scale
    }

    /// Whether the file says what our own converter settled: the context is then the model's limit, with scaling too.
    var statesContextItself: Bool { keys.has(ModelFileFormat.Key.sourceArchitecture) }

    /// At most a few names, for a message.
    func unknown(_ known: Set<String>) -> [String] {
        let prefix = architecture + "."
        let names = keys.file.entries.lazy.map(\.key).filter {
            $0.hasPrefix(prefix) && !known.contains(String($0.dropFirst(prefix.count)))
                && !$0.hasPrefix(prefix + "tokenizer.") && !$0.hasPrefix(prefix + "chat.")
        }
        return Array(names.prefix(8))
    }
}
