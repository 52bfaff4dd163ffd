import SigmaBase

/// Where the document's identified resources and anchors are.
struct ReferenceIndex {
    struct Place {
        var value: JSONValue
        var pointer: String
        /// The base inside `value`.
        var base: String
        /// The base around it, where `value` sets one of its own.
        var outerBase: String?
        var draft: SchemaDraft

        /// One step of a JSON Pointer.
        func step(_ token: String) -> Place? {
            let next: JSONValue?
            switch value {
            case .object(let object): next = object[token]
            case .array(let list): next = Int(token).flatMap { list.indices.contains($0) ? list[$0] : nil }
            default: next = nil
            }
            guard let next else { return nil }
            return Place(
                value: next, pointer: pointer + "/" + URIReference.escapedPointerToken(token),
                base: SchemaDocument.base(of: next, outer: base, draft: draft), outerBase: base, draft: draft)
        }
    }

    private(set) var resources: [ByteKey: Place] = [:]
    private(set) var anchors: [ByteKey: Place] = [:]
    private(set) var dynamicAnchorCounts: [ByteKey: Int] = [:]

    init(root: JSONValue, base: String, draft: SchemaDraft) {
        scan(root, pointer: "", base: base, draft: draft)
    }

    private static let single: Set<String> = [
        "additionalProperties", "additionalItems", "items", "contains", "not", "if", "then", "else", "propertyNames",
        "unevaluatedItems", "unevaluatedProperties",
    ]
    private static let maps: Set<String> = [
        "properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies",
    ]
    private static let lists: Set<String> = ["allOf", "anyOf", "oneOf", "prefixItems", "items"]

    private mutating func scan(_ value: JSONValue, pointer: String, base outer: String, draft outerDraft: SchemaDraft) {
        guard case .object(let object) = value else { return }
        let draft = object["$schema"]?.string.flatMap { SchemaDraft(uri: $0) } ?? outerDraft
        let base = SchemaDocument.base(of: value, outer: outer, draft: draft)
        let place = Place(value: value, pointer: pointer, base: base, outerBase: outer, draft: draft)
        if pointer.isEmpty || base != outer { resources[ByteKey(text: base)] = place }
        let idFragment = (object["$id"] ?? object["id"])?.string.flatMap { $0.hasPrefix("#") ? $0.dropFirst() : nil }
        if let idFragment, draft != .modern { anchors[ByteKey(text: base + "#" + idFragment)] = place }
        for keyword in ["$anchor", "$dynamicAnchor"] {
            guard let name = object[keyword]?.string else { continue }
            anchors[ByteKey(text: base + "#" + name)] = place
            if keyword == "$dynamicAnchor" { dynamicAnchorCounts[ByteKey(text: name), default: 0] += 1 }
        }
        for (key, inner) in zip(object.keys, object.values) {
            let path = pointer + "/" + URIReference.escapedPointerToken(key)
            if Self.single.contains(key), case .object = inner {
                scan(inner, pointer: path, base: base, draft: draft)
            } else if Self.maps.contains(key), let members = inner.object {
                for (name, member) in zip(members.keys, members.values) {
                    let token = URIReference.escapedPointerToken(name)
                    scan(member, pointer: path + "/" + token, base: base, draft: draft)
                }
            } else if Self.lists.contains(key), let list = inner.array {
                for (number, member) in list.enumerated() {
                    scan(member, pointer: path + "/\(number)", base: base, draft: draft)
                }
            }
        }
    }
}

/// References as RFC 3986 and RFC 6901 write them.
enum URIReference {
    /// `reference` as an absolute one: the resource without fragment, and the fragment, decoded.
    static func resolve(_ reference: String, against base: String) -> (resource: String, fragment: String) {
        let parts = reference.split(separator: "#", maxSplits: 1, omittingEmptySubsequences: false)
        let fragment = parts.count > 1 ? percentDecoded(parts[1]) : ""
        let path = String(parts.first ?? "")
        if path.isEmpty { return (base, fragment) }
        if scheme(of: path) != nil || base.isEmpty { return (path, fragment) }
        guard let scheme = scheme(of: base), base.dropFirst(scheme.count).hasPrefix("://") else {
            return (path, fragment)
        }
        if path.hasPrefix("//") { return (scheme + ":" + path, fragment) }
        let afterScheme = base.dropFirst(scheme.count + 3)
        let authority = scheme + "://" + afterScheme.prefix { $0 != "/" }
        if path.hasPrefix("/") { return (authority + path, fragment) }
        var segments = base.dropFirst(authority.count).split(separator: "/", omittingEmptySubsequences: false)
        if !segments.isEmpty { segments.removeLast() }
        for segment in path.split(separator: "/", omittingEmptySubsequences: false) {
            if segment == ".." {
                if segments.count > 1 { segments.removeLast() }
            } else if segment != "." {
                segments.append(segment)
            }
        }
        let joined = segments.joined(separator: "/")
        return (authority + (joined.hasPrefix("/") ? "" : "/") + joined, fragment)
    }

    private static func scheme(of text: String) -> String? {
        guard let colon = text.firstIndex(of: ":"), colon != text.startIndex else { return nil }
        let name = text[..<colon]
        guard let first = name.unicodeScalars.first, first.properties.isAlphabetic,
            name.utf8.allSatisfy({ $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: "?") })
        else { return nil }
        return String(name)
    }

    static func percentDecoded(_ text: Substring) -> String {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "%"), rest.count >= 2,
                let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
            {
                bytes.append(value)
                rest = rest.dropFirst(2)
            } else {
                bytes.append(byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    static func escapedPointerToken(_ text: String) -> String {
        guard text.utf8.contains(where: { $0 == UInt8(ascii: "~") || $0 == UInt8(ascii: "/") }) else { return text }
        return text.map { $0 == "~" ? "~0" : $0 == "/" ? "~1" : String($0) }.joined()
    }

    static func unescapedPointerToken(_ token: Substring) -> String {
        var result = ""
        var rest = token.unicodeScalars[...]
        while let next = rest.popFirst() {
            if next == "~", let code = rest.first, code == "0" || code == "1" {
                result.unicodeScalars.append(code == "0" ? "~" : "/")
                rest.removeFirst()
            } else {
                result.unicodeScalars.append(next)
            }
        }
        return result
    }
}
