import Sigma

/// Typed access to an object of `config.json`, with errors that name the key. `null` counts as absent.
package struct ConfigReader {
    let config: JSONObject
    let path: String
    /// What the object's own keys follow in messages: empty for the whole config, `rope_scaling.` for a part.
    let prefix: String
    var warnings: [String] = []

    init(config: JSONObject, path: String, prefix: String = "") {
        self.config = config
        self.path = path
        self.prefix = prefix
    }

    func failure(_ key: String, _ message: String, remedy: Remedy? = nil) -> SigmaError {
        SigmaError(.damaged, message, path: path, item: prefix + key, remedy: remedy)
    }

    func value(_ key: String) -> JSONValue? { config[key].flatMap { $0.isNull ? nil : $0 } }
    func has(_ key: String) -> Bool { value(key) != nil }

    func integer(_ key: String) throws -> Int? {
        guard let value = value(key) else { return nil }
        guard let integer = value.integer else { throw failure(key, "expected an integer, found \(value.kind)") }
        return Int(integer)
    }
    /// A number that must be there, from 1 to 2^31 - 1.
    func count(_ key: String) throws -> Int {
        guard let value = try integer(key) else {
            throw failure(key, "the key is missing", remedy: "Give it with --override \(key)=N")
        }
        guard (1...Int(Int32.max)).contains(value) else {
            throw failure(key, "expected a number from 1 to \(Int32.max), found \(value)")
        }
        return value
    }
    func number(_ key: String) throws -> Double? {
        guard let value = value(key) else { return nil }
        guard let number = value.double else { throw failure(key, "expected a number, found \(value.kind)") }
        return number
    }
    func bool(_ key: String) throws -> Bool? {
        guard let value = value(key) else { return nil }
        guard let bool = value.bool else { throw failure(key, "expected true or false, found \(value.kind)") }
        return bool
    }
    func string(_ key: String) throws -> String? {
        guard let value = value(key) else { return nil }
        guard let string = value.string else { throw failure(key, "expected a string, found \(value.kind)") }
        return string
    }
    /// A part of the config.
    func section(_ key: String) throws -> ConfigReader? {
        guard let value = value(key) else { return nil }
        guard let object = value.object else { throw failure(key, "expected an object, found \(value.kind)") }
        return ConfigReader(config: object, path: path, prefix: prefix + key + ".")
    }
    /// A list of integers, one integer, or nothing.
    func integers(_ key: String) throws -> [Int] {
        guard let value = value(key) else { return [] }
        if let one = value.integer { return [Int(one)] }
        guard let list = value.array else { throw failure(key, "expected integers, found \(value.kind)") }
        return try list.map { item in
            guard let integer = item.integer else { throw failure(key, "expected integers, found \(item.kind)") }
            return Int(integer)
        }
    }
    mutating func warnIfDifferent(_ key: String, from actual: Int, _ reason: String) throws {
        if let value = try integer(key), value != actual { warnings.append("\(key) is \(value), but \(reason)") }
    }
}
