/// Typed access to the keys of a GGUF file, with errors that name the key and where its value is.
package struct KeyReader {
    package let file: GGUFFile

    package init(file: GGUFFile) { self.file = file }

    package func failure(_ key: String, _ message: String) -> SigmaError {
        SigmaError(
            .damaged, message, path: file.file.path, item: key, offset: file.entry(key).map { UInt64($0.offset) })
    }

    package func has(_ key: String) -> Bool { file[key] != nil }

    private func get<T>(_ key: String, _ expected: String, _ convert: (GGUFValue) -> T?) throws -> T {
        guard let value = file[key] else { throw failure(key, "the key is missing") }
        guard let result = convert(value) else {
            throw failure(key, "expected \(expected), found \(value.description)")
        }
        return result
    }

    package func integer(_ key: String) throws -> Int { try get(key, "an integer") { $0.integer } }
    package func float(_ key: String) throws -> Float {
        let value = Float(try get(key, "a number") { $0.double })
        guard value.isFinite else { throw failure(key, "expected a finite number, found \(value)") }
        return value
    }
    package func bool(_ key: String) throws -> Bool { try get(key, "a boolean") { $0.bool } }
    package func string(_ key: String) throws -> String { try get(key, "a string") { $0.string } }
    package func integers(_ key: String) throws -> [Int] { try get(key, "an array of integers") { $0.array?.integers } }
    package func floats(_ key: String) throws -> [Float] {
        try get(key, "an array of finite numbers") { value in
            guard let array = value.array else { return nil }
            let numbers = (0..<array.count).compactMap { array.double($0).map { Float($0) } }
            return numbers.count == array.count && numbers.allSatisfy(\.isFinite) ? numbers : nil
        }
    }
    package func strings(_ key: String) throws -> GGUFArray {
        try get(key, "an array of strings") { $0.array?.kind == .string ? $0.array : nil }
    }
    package func choice<T>(_ key: String, _ convert: (String) -> T?, _ expected: String) throws -> T {
        let text = try string(key)
        guard let value = convert(text) else { throw failure(key, "expected \(expected), found '\(text)'") }
        return value
    }
}
