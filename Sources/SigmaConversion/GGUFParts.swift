import Sigma

/// A GGUF file, or all parts of a split one: the first has the metadata, and any part any tensor.
package struct GGUFParts: Sendable {
    package let parts: [GGUFFile]

    package var first: GGUFFile { parts[0] }
    package var path: String { first.file.path }
    package var paths: [String] { parts.map(\.file.path) }

    /// - Parameter first: the file, or the first part; the others are beside it (`NAME-00001-of-00003.gguf`).
    /// - Throws: `SigmaError`: `.noInput` for a part that is missing, `.damaged` for one that belongs elsewhere.
    package init(_ first: GGUFFile) throws {
        let keys = KeyReader(file: first)
        let count = keys.has(Self.countKey) ? try keys.integer(Self.countKey) : 1
        guard count > 1 else {
            parts = [first]
            return
        }
        guard count <= 4096 else { throw keys.failure(Self.countKey, "expected at most 4096 parts, found \(count)") }
        guard try keys.integer(Self.numberKey) == 0 else {
            try first.checkIsModel()
            throw keys.failure(Self.numberKey, "expected a part's number")
        }
        let suffix = Self.suffix(0, of: count)
        guard first.file.path.hasSuffix(suffix) else {
            throw SigmaError(
                .damaged, "this is the first of \(count) parts of a model, so its name must end with \(suffix)",
                path: first.file.path, item: Self.countKey, remedy: "Restore the original names of the parts.")
        }
        let prefix = first.file.path.dropLast(suffix.count)
        var parts = [first]
        for number in 1..<count {
            let part = try GGUFFile(path: prefix + Self.suffix(number, of: count))
            let keys = KeyReader(file: part)
            for (key, expected) in [(Self.numberKey, number), (Self.countKey, count)] {
                let found = try keys.integer(key)
                guard found == expected else { throw keys.failure(key, "expected \(expected), found \(found)") }
            }
            parts.append(part)
        }
        self.parts = parts
        var names: Set<ByteKey> = []
        for part in parts {
            for tensor in part.tensors where !names.insert(ByteKey(text: tensor.name)).inserted {
                throw SigmaError(
                    .damaged, "the tensor is in two parts", path: part.file.path, item: tensor.name,
                    offset: UInt64(tensor.headerOffset))
            }
        }
        if keys.has(Self.tensorCountKey) {
            let expected = try keys.integer(Self.tensorCountKey)
            guard expected == names.count else {
                throw keys.failure(
                    Self.tensorCountKey, "expected \(expected) tensors in all parts, found \(names.count)")
            }
        }
    }

    private static let countKey = "split.count"
    private static let numberKey = "split.no"
    private static let tensorCountKey = "split.tensors.count"

    /// How the name of a part ends, counted from 0 here and from 1 in the name.
    private static func suffix(_ number: Int, of count: Int) -> String {
        func padded(_ value: Int) -> String {
            let digits = "\(value)"
            return String(repeating: "0", count: max(0, 5 - digits.count)) + digits
        }
        return "-\(padded(number + 1))-of-\(padded(count)).gguf"
    }

    package func tensor(_ name: String) -> (file: GGUFFile, tensor: GGUFFile.Tensor)? {
        for part in parts { if let tensor = part.tensor(name) { return (part, tensor) } }
        return nil
    }

    /// Fails if a file was truncated while it was read.
    package func checkIntact() throws { for part in parts { try part.file.checkIntact() } }
}
