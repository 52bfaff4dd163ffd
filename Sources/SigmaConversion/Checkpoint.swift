import Sigma
import SystemLibrary

/// A Hugging Face checkpoint folder: `config.json` and the tensors of its safetensors files, whatever their number.
package final class Checkpoint: Sendable {
    package let folder: String
    package let config: JSONObject
    package let shards: [SafetensorsFile]
    /// Choices that were made while reading, to be shown.
    package let warnings: [String]
    private let places: [ByteKey: (shard: Int, tensor: Int)]
    /// Files that the index promises a tensor in which is not there.
    private let broken: [ByteKey: String]

    package var configPath: String { folder + "/config.json" }
    /// All tensors' names, shard by shard.
    package var names: [String] { shards.flatMap { $0.tensors.map(\.name) } }
    /// Tensors that the index names and no file has, sorted.
    package var absentNames: [String] { broken.keys.map(\.text).sorted() }

    /// - Throws: `SigmaError`: `.noInput` for a missing folder or file (a shard, too), `.damaged`, or `.unavailable` for kinds of input that
    ///   are not read yet.
    package init(folder given: String) throws {
        let folder = try CheckpointFolder(given)
        self.folder = folder.path
        guard let config = try JSONValue.parse(file: folder.file("config.json")).object else {
            throw SigmaError(.damaged, "expected a JSON object", path: folder.file("config.json"), offset: 0)
        }
        self.config = config

        let single = "model.safetensors"
        let indexName = single + ".index.json"
        var warnings: [String] = []
        var index: TensorIndex?
        let names: [String]
        if folder.has(indexName) {
            let found = try TensorIndex(path: folder.file(indexName))
            if let missing = found.files.first(where: { !folder.has($0) }) {
                guard folder.has(single) else {
                    throw SigmaError(
                        .noInput, "a file that the index names is missing", path: folder.file(missing),
                        remedy: "Complete the download: the checkpoint has \(found.files.count) files of tensors.")
                }
                warnings.append("\(single) is used; there is an index too, whose files are not all here (\(missing))")
                names = [single]
            } else {
                if folder.has(single), !found.files.contains(single) {
                    warnings.append("\(indexName) names other files than \(single), which is not used")
                }
                names = found.files
                index = found
            }
        } else if folder.has(single) {
            names = [single]
        } else {
            names = try folder.unindexedShards()
            let what = names.count == 1 ? "\(names[0]) has" : "the \(names.count) files of tensors have"
            warnings.append("there is no \(indexName): \(what) what their headers name")
        }
        shards = try names.map { try SafetensorsFile(path: folder.file($0)) }
        (places, broken) = try Self.places(shards, names, index)
        self.warnings = warnings
    }

    /// Where each tensor is. An index decides between files that hold the same.
    private static func places(
        _ shards: [SafetensorsFile], _ names: [String], _ index: TensorIndex?
    ) throws -> ([ByteKey: (shard: Int, tensor: Int)], broken: [ByteKey: String]) {
        var places: [ByteKey: (shard: Int, tensor: Int)] = [:]
        var ambiguous: [ByteKey: (shard: Int, tensor: Int)] = [:]
        for (s, shard) in shards.enumerated() {
            for (t, tensor) in shard.tensors.enumerated() {
                let key = ByteKey(text: tensor.name)
                let promised = index?.fileOf[key]
                if let promised, promised != names[s] { continue }
                if places[key] != nil { ambiguous[key] = (s, t) } else { places[key] = (s, t) }
            }
        }
        if let (key, second) = ambiguous.min(by: { $0.value < $1.value }) {
            throw SigmaError(
                .damaged, "the tensor is in \(shards[places[key]!.shard].file.path) too",
                path: shards[second.shard].file.path, item: key.text)
        }
        var broken: [ByteKey: String] = [:]
        for (key, file) in index?.fileOf ?? [:] where places[key] == nil {
            broken[key] = shards[names.firstIndex(of: file)!].file.path
        }
        return (places, broken)
    }

    package func tensor(_ name: String) -> SourceTensor? {
        guard let place = places[ByteKey(text: name)] else { return nil }
        let shard = shards[place.shard]
        return SourceTensor(shard: shard, tensor: shard.tensors[place.tensor])
    }

    /// The tensor; nil if the checkpoint has none of that name.
    ///
    /// - Throws: `SigmaError` (`.damaged`) if the index promises it in a file that doesn't have it.
    package func find(_ name: String) throws -> SourceTensor? {
        if let tensor = tensor(name) { return tensor }
        if broken[ByteKey(text: name)] != nil { throw missing(name) }
        return nil
    }

    package func missing(_ name: String) -> SigmaError {
        if let file = broken[ByteKey(text: name)] {
            return SigmaError(
                .damaged, "the tensor is missing, but the index says that it is here", path: file, item: name)
        }
        return SigmaError(
            .damaged, "the tensor is missing",
            path: shards.count == 1 ? shards[0].file.path : folder + "/model.safetensors.index.json", item: name)
    }

    /// Fails if a file was truncated while it was read.
    package func checkIntact() throws {
        for shard in shards { try shard.file.checkIntact() }
    }
}

/// `model.safetensors.index.json`: which file has which tensor.
private struct TensorIndex {
    /// Sorted.
    let files: [String]
    let fileOf: [ByteKey: String]

    init(path: String) throws {
        guard let map = try JSONValue.parse(file: path)["weight_map"]?.object, map.count > 0 else {
            throw SigmaError(.damaged, "expected an object of tensors and files", path: path, item: "weight_map")
        }
        var fileOf: [ByteKey: String] = [:]
        for (tensor, value) in zip(map.keys, map.values) {
            // A name with a path in it would read files outside the folder.
            guard let name = value.string, !name.isEmpty, !name.utf8.contains(UInt8(ascii: "/")),
                !name.utf8.contains(0), name != ".", name != ".."
            else { throw SigmaError(.damaged, "expected a file name, found \(value.kind)", path: path, item: tensor) }
            fileOf[ByteKey(text: tensor)] = name
        }
        self.fileOf = fileOf
        files = Set(fileOf.values).sorted()
    }
}

/// One tensor of a checkpoint.
package struct SourceTensor: Sendable {
    package let shard: SafetensorsFile
    package let tensor: SafetensorsFile.Tensor

    package var name: String { tensor.name }
    package var shape: [Int] { tensor.shape }
    package var bytes: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: shard.file.bytes[tensor.offset..<tensor.offset + tensor.byteCount])
    }

    /// The weight type with the same bits; nil for integers, 8-bit floats and so on.
    package var storedType: WeightType? {
        switch tensor.type {
        case "F32": .f32
        case "F16": .f16
        case "BF16": .bf16
        default: nil
        }
    }

    package func failure(_ message: String) -> SigmaError {
        SigmaError(.damaged, message, path: shard.file.path, item: name, offset: UInt64(tensor.offset))
    }

    package func check(shape expected: [Int]) throws {
        guard storedType != nil else { throw failure("expected type BF16, F16 or F32, found \(tensor.type)") }
        guard shape == expected else { throw failure("expected shape \(expected), found \(shape)") }
    }

    /// Whether both hold the same bytes. Both are read once, and not kept in memory.
    func isEqual(to other: SourceTensor) -> Bool {
        guard tensor.type == other.tensor.type, shape == other.shape else { return false }
        let (mine, its) = (bytes, other.bytes)
        let piece = 1 << 24
        for start in stride(from: 0, to: mine.count, by: piece) {
            let count = min(piece, mine.count - start)
            guard memcmp(mine.baseAddress! + start, its.baseAddress! + start, count) == 0 else { return false }
            for side in [self, other] {
                side.shard.file.release(side.tensor.offset + start..<side.tensor.offset + start + count)
            }
        }
        return true
    }
}
