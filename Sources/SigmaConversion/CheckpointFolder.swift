import Sigma
import SystemLibrary

/// The files of a checkpoint folder: which of them hold the tensors, and what is wrong if it is none.
struct CheckpointFolder {
    let path: String

    /// - Throws: `SigmaError`: `.noInput` if nothing is there, `.damaged` for what is not a checkpoint folder, with the folder to name where
    ///   that can be seen.
    init(_ given: String) throws {
        try checkPath(given)
        var path = given
        while path.count > 1, path.hasSuffix("/") { path.removeLast() }
        self.path = path
        var status = stat()
        guard stat(path, &status) == 0 else {
            let code = errno
            let leads = linkTarget(path).map { ", the link leads to \($0)" } ?? ""
            throw SigmaError(.noInput, "cannot open the checkpoint folder: \(systemMessage(code))\(leads)", path: path)
        }
        guard status.st_mode & S_IFMT == S_IFDIR else { throw Self.notAFolder(path) }
        if !isPresent(path + "/config.json") { throw try notACheckpoint() }
    }

    func file(_ name: String) -> String { path + "/" + name }
    func has(_ name: String) -> Bool { isPresent(file(name)) }

    /// Names in the folder, sorted.
    func names() throws -> [String] { try Self.names(in: path) }

    static func names(in path: String) throws -> [String] {
        guard let directory = opendir(path) else {
            let code = errno
            throw SigmaError(
                code == ENOENT ? .noInput : .inputOutput, "cannot list the folder: \(systemMessage(code))", path: path)
        }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: MemoryLayout.size(ofValue: entry.pointee.d_name)) {
                    String(cString: $0)
                }
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    // MARK: tensors without an index

    /// One file, or the parts of one set, whose headers together name all tensors.
    ///
    /// - Throws: `SigmaError` (`.noInput`) saying which part is missing, or what is there instead.
    func unindexedShards() throws -> [String] {
        let names = try names()
        let all = names.filter { $0.hasSuffix(".safetensors") && !$0.hasPrefix("adapter_") }
        let shards = all.compactMap(ShardName.init)
        let sets = Set(shards.map(\.set))
        if let set = sets.count == 1 ? sets.first : sets.first(where: { $0.stem == "model" }),
            sets.count(where: { $0.stem == "model" }) <= 1
        {
            let missing = Set(1...set.count).subtracting(shards.filter { $0.set == set }.map(\.number)).sorted()
            guard missing.isEmpty else {
                let list = missing.prefix(4).map { set.name($0) }.joined(separator: ", ")
                throw SigmaError(
                    .noInput,
                    "\(set.count - missing.count) of \(set.count) files of tensors are here; missing: \(list)\(missing.count > 4 ? ", ..." : "")",
                    path: path, remedy: "Complete the download: model.safetensors.index.json is missing too.")
            }
            return (1...set.count).map(set.name)
        }
        if sets.isEmpty, all.count == 1 { return all }
        throw SigmaError(
            .noInput, "no model.safetensors and no model.safetensors.index.json here", path: path,
            remedy: remedy(names, safetensors: all))
    }

    private func remedy(_ names: [String], safetensors: [String]) -> Remedy? {
        if !safetensors.isEmpty {
            return
                "It is not clear which files hold the model: \(Self.list(safetensors)). Download model.safetensors.index.json."
        }
        if names.contains(where: { $0.hasPrefix("adapter_") }) {
            return "This is an adapter (LoRA): merge it into its base model and save that."
        }
        if names.contains(where: { $0.hasPrefix("pytorch_model") || $0.hasSuffix(".pth") || $0.hasSuffix(".pt") }) {
            return "PyTorch's own files are not read: save the checkpoint as safetensors."
        }
        if let file = names.first(where: { $0.hasSuffix(".gguf") }) {
            return "To convert the GGUF file: sigma-convert \(shellQuoted(path + "/" + file)) OUTPUT"
        }
        return "Complete the download: the files of tensors are missing."
    }

    // MARK: what is no checkpoint

    private static func notAFolder(_ path: String) -> SigmaError {
        let parent = splitPath(path).folder
        if let file = try? MappedFile(path: path) {
            do { try StandIn.check(file, expected: "a checkpoint folder or a GGUF file") } catch {
                if let error = error as? SigmaError { return error }
            }
            let isTensors = path.hasSuffix(".safetensors") || path.hasSuffix(".safetensors.index.json")
            if isTensors, isPresent(parent + "/config.json") {
                return SigmaError(
                    .damaged, "expected a checkpoint folder or a GGUF file, found one file of a checkpoint", path: path,
                    remedy: "Name its folder: sigma-convert \(shellQuoted(parent)) OUTPUT")
            }
        }
        return SigmaError(
            .damaged, "expected a checkpoint folder or a GGUF file, found another file", path: path,
            remedy: "Name the folder that holds config.json and the safetensors files.")
    }

    /// A folder without `config.json`: perhaps the folder that was meant lies in it.
    private func notACheckpoint() throws -> SigmaError {
        let names = try names()
        func failure(_ message: String, _ remedy: Remedy) -> SigmaError {
            SigmaError(.noInput, message, path: file("config.json"), remedy: remedy)
        }
        let inner = try innerCheckpoints(names)
        if inner.count == 1 || (inner.count > 1 && has("snapshots")) {
            return failure(
                "there is no such file here, but in a folder of this one",
                "Name that folder: sigma-convert \(shellQuoted(inner[0])) OUTPUT")
        }
        if inner.count > 1 {
            return failure(
                "there is no such file here, but in folders of this one", "Name one of them: \(Self.list(inner)).")
        }
        if let file = names.first(where: { $0.hasSuffix(".gguf") }) {
            return failure(
                "there is no such file here, but a GGUF file",
                "Name the file: sigma-convert \(shellQuoted(self.file(file))) OUTPUT")
        }
        if names.contains("adapter_config.json") {
            return failure("this is an adapter (LoRA), not a model", "Merge it into its base model and save that.")
        }
        return failure("there is no such file", "Name the folder that holds config.json and the safetensors files.")
    }

    /// Folders with a `config.json`, at most two below this one. In a cache of Hugging Face's the snapshot that `refs` names comes first.
    private func innerCheckpoints(_ names: [String]) throws -> [String] {
        func folders(_ path: String) -> [String] { (try? CheckpointFolder(unchecked: path).names()) ?? [] }
        var found: [String] = []
        for name in names.prefix(256) where !name.hasPrefix(".") {
            if isPresent(file(name) + "/config.json") {
                found.append(file(name))
                continue
            }
            guard ["snapshots", "models"].contains(name) || name.hasPrefix("models--") else { continue }
            for inner in folders(file(name)).prefix(256) {
                if isPresent("\(file(name))/\(inner)/config.json") { found.append("\(file(name))/\(inner)") }
                guard inner == "snapshots" else { continue }
                for snapshot in folders("\(file(name))/\(inner)").prefix(256)
                where isPresent("\(file(name))/\(inner)/\(snapshot)/config.json") {
                    found.append("\(file(name))/\(inner)/\(snapshot)")
                }
            }
        }
        if let reference = try? MappedFile(path: file("refs/main")) {
            let name = String(decoding: reference.bytes.prefix(80).filter { $0 > 0x20 }, as: UTF8.self)
            if let place = found.firstIndex(of: file("snapshots/\(name)")) { found.swapAt(0, place) }
        }
        return found
    }

    private init(unchecked path: String) { self.path = path }

    private static func list(_ names: [String]) -> String {
        names.prefix(4).joined(separator: ", ") + (names.count > 4 ? ", ... (\(names.count) in all)" : "")
    }
}

/// `STEM-00001-of-00003.safetensors`.
struct ShardName {
    struct Set: Hashable {
        let stem: String
        /// As written, with its zeros.
        let total: String
        var count: Int { Int(total)! }

        func name(_ number: Int) -> String {
            let digits = "\(number)"
            let zeros = String(repeating: "0", count: max(0, total.utf8.count - digits.utf8.count))
            return "\(stem)-\(zeros)\(digits)-of-\(total).safetensors"
        }
    }

    let set: Set
    let number: Int

    init?(_ name: String) {
        guard name.hasSuffix(".safetensors") else { return nil }
        let parts = name.dropLast(".safetensors".count).split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count >= 4, parts[parts.count - 2] == "of" else { return nil }
        let (number, total) = (parts[parts.count - 3], parts[parts.count - 1])
        func isNumber(_ text: Substring) -> Bool {
            (1...5).contains(text.utf8.count) && text.utf8.allSatisfy { (48...57).contains($0) }
        }
        guard isNumber(number), isNumber(total), let value = Int(number), let count = Int(total), count >= 1,
            (1...count).contains(value), number.utf8.count == total.utf8.count
        else { return nil }
        set = Set(stem: parts.dropLast(3).joined(separator: "-"), total: String(total))
        self.number = value
    }
}
