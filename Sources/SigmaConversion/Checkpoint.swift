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

    package var configPath: String { folder + "/config.json" }
    /// All tensors' names, shard by shard.
    package var names: [String] { shards.flatMap { $0.tensors.map(\.name) } }

    /// - Throws: `SigmaError`: `.noInput` for a missing folder or file (a shard, too), `.damaged`, or `.unavailable` for kinds of input that
    ///   are not read yet.
    package init(folder given: String) throws {
        var folder = given
        while folder.count > 1, folder.hasSuffix("/") { folder.removeLast() }
        self.folder = folder
        try Self.checkKind(folder)
        guard let config = try JSONValue.parse(file: folder + "/config.json").object else {
            throw SigmaError(.damaged, "expected a JSON object", path: folder + "/config.json", offset: 0)
        }
        self.config = config

        let single = folder + "/model.safetensors"
        let indexPath = single + ".index.json"
        var warnings: [String] = []
        if fileExists(single) {
            if fileExists(indexPath) {
                warnings.append("\(folder): model.safetensors is used; there is an index of several files too")
            }
            shards = [try SafetensorsFile(path: single)]
        } else if fileExists(indexPath) {
            shards = try Self.shards(index: indexPath, folder: folder)
        } else {
            let isPickle =
                fileExists(folder + "/pytorch_model.bin") || fileExists(folder + "/pytorch_model.bin.index.json")
            throw SigmaError(
                .noInput, "no model.safetensors and no model.safetensors.index.json here", path: folder,
                remedy: isPickle ? "PyTorch's own files are not read: save the checkpoint as safetensors." : nil)
        }
        self.warnings = warnings

        var places: [ByteKey: (shard: Int, tensor: Int)] = [:]
        for (s, shard) in shards.enumerated() {
            for (t, tensor) in shard.tensors.enumerated() {
                if let other = places.updateValue((s, t), forKey: ByteKey(text: tensor.name)) {
                    throw SigmaError(
                        .damaged, "the tensor is in \(shards[other.shard].file.path) too", path: shard.file.path,
                        item: tensor.name)
                }
            }
        }
        self.places = places
    }

    package func tensor(_ name: String) -> SourceTensor? {
        guard let place = places[ByteKey(text: name)] else { return nil }
        let shard = shards[place.shard]
        return SourceTensor(shard: shard, tensor: shard.tensors[place.tensor])
    }

    /// - Throws: `SigmaError` (`.damaged`) if the tensor is missing, of another shape, or of a type that is not read.
    package func tensor(_ name: String, shape: [Int]) throws -> SourceTensor {
        guard let tensor = tensor(name) else { throw missing(name) }
        try tensor.check(shape: shape)
        return tensor
    }

    package func missing(_ name: String) -> SigmaError {
        SigmaError(
            .damaged, "the tensor is missing",
            path: shards.count == 1 ? shards[0].file.path : folder + "/model.safetensors.index.json", item: name)
    }

    /// Fails if a file was truncated while it was read.
    package func checkIntact() throws {
        for shard in shards { try shard.file.checkIntact() }
    }

    private static func checkKind(_ folder: String) throws {
        var status = stat()
        guard stat(folder, &status) == 0 else {
            throw SigmaError(.noInput, "cannot open the checkpoint folder: \(systemMessage(errno))", path: folder)
        }
        if status.st_mode & S_IFMT == S_IFDIR { return }
        throw SigmaError(
            .damaged, "expected a checkpoint folder or a GGUF file, found another file", path: folder,
            remedy: "Name the folder that holds config.json and the safetensors files.")
    }

    private static func shards(index: String, folder: String) throws -> [SafetensorsFile] {
        guard let map = try JSONValue.parse(file: index)["weight_map"]?.object, map.count > 0 else {
            throw SigmaError(.damaged, "expected an object of tensors and files", path: index, item: "weight_map")
        }
        var names: [String] = []
        var numbers: [String: Int] = [:]
        var tensorsOf: [[String]] = []
        for (tensor, value) in zip(map.keys, map.values) {
            // A name with a path in it would read files outside the folder.
            guard let name = value.string, !name.isEmpty, !name.utf8.contains(UInt8(ascii: "/")),
                !name.utf8.contains(0),
                name != ".", name != ".."
            else { throw SigmaError(.damaged, "expected a file name, found \(value.kind)", path: index, item: tensor) }
            if numbers[name] == nil {
                numbers[name] = names.count
                names.append(name)
                tensorsOf.append([])
            }
            tensorsOf[numbers[name]!].append(tensor)
        }
        let sorted = names.sorted()
        return try sorted.map { name in
            let path = folder + "/" + name
            guard fileExists(path) else {
                throw SigmaError(
                    .noInput, "a file that the index names is missing", path: path,
                    remedy: "Complete the download: the checkpoint has \(names.count) files of tensors.")
            }
            let file = try SafetensorsFile(path: path)
            let present = Set(file.tensors.map { ByteKey(text: $0.name) })
            if let lost = tensorsOf[numbers[name]!].first(where: { !present.contains(ByteKey(text: $0)) }) {
                throw SigmaError(
                    .damaged, "the tensor is missing, but the index says that it is here", path: path, item: lost)
            }
            return file
        }
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
}

func fileExists(_ path: String) -> Bool { access(path, F_OK) == 0 }
