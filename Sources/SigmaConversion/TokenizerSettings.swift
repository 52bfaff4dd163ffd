import Sigma
import SystemLibrary

/// What `tokenizer_config.json` says (nothing, if there is none).
struct TokenizerSettings {
    let path: String
    let json: JSONObject
    /// What was read.
    let files: [String]
    /// Nil if there is none.
    let chatTemplate: String?

    init(folder: String) throws {
        path = folder + "/tokenizer_config.json"
        var files: [String] = []
        if isPresent(path) {
            guard let object = try JSONValue.parse(file: path).object else {
                throw SigmaError(.damaged, "expected a JSON object", path: path, offset: 0)
            }
            json = object
            files.append(path)
        } else {
            json = JSONObject()
        }
        let templatePath = folder + "/chat_template.jinja"
        if isPresent(templatePath) {
            let file = try MappedFile(path: templatePath)
            try StandIn.check(file, expected: "a chat template")
            guard isValidUTF8(file.bytes) else {
                throw SigmaError(.damaged, "the chat template is not valid UTF-8", path: templatePath)
            }
            chatTemplate = String(decoding: file.bytes, as: UTF8.self)
            files.append(templatePath)
        } else if let template = Self.template(in: json) {
            chatTemplate = template
        } else if isPresent(folder + "/chat_template.json") {
            // Where processors of several kinds of input have it.
            let path = folder + "/chat_template.json"
            guard let object = try JSONValue.parse(file: path).object else {
                throw SigmaError(.damaged, "expected a JSON object", path: path, offset: 0)
            }
            chatTemplate = Self.template(in: object)
            files.append(path)
        } else {
            chatTemplate = nil
        }
        self.files = files
    }

    private static func template(in json: JSONObject) -> String? {
        // Several have names; conversations use the one that is called so.
        let named = json["chat_template"]?.array ?? []
        return json["chat_template"]?.string
            ?? (named.first { $0["name"]?.string == "default" } ?? named.first)?["template"]?.string
    }

    /// `bos_token` or `eos_token`: a text, or an object with one.
    func tokenText(_ key: String) -> String? { json[key]?.string ?? json[key]?["content"]?.string }

    func bool(_ key: String) throws -> Bool? {
        guard let value = json[key], !value.isNull else { return nil }
        guard let bool = value.bool else {
            throw SigmaError(.damaged, "expected true or false, found \(value.kind)", path: path, item: key)
        }
        return bool
    }
}
