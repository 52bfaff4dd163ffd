extension JSONValue {
    /// The value as JSON, without white space.
    package var text: String {
        var writer = JSONWriter()
        writer.value(self)
        return writer.text
    }
}

extension JSONWriter {
    package mutating func value(_ value: JSONValue) {
        switch value {
        case .null: null()
        case .bool(let value): self.value(value)
        case .integer(let value): self.value(value)
        case .number(let value): self.value(value)
        case .decimal(let text): json(text)
        case .string(let value): self.value(value)
        case .array(let values): array { json in for value in values { json.value(value) } }
        case .object(let object):
            self.object { json in
                for (key, value) in zip(object.keys, object.values) {
                    json.key(key)
                    json.value(value)
                }
            }
        }
    }
}
