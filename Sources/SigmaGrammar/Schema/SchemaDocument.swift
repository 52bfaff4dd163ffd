import SigmaBase

/// A schema's number in its document.
typealias SchemaID = Int32

/// Which keywords mean what.
enum SchemaDraft {
    /// Draft 3 to 7: `$ref` hides its siblings, `items` may be a list.
    case legacy
    case modern
    /// No `$schema`: read as 2020-12, and the older forms that it has no meaning for are taken, too.
    case unstated

    init?(uri: String) {
        if ["draft-03", "draft-04", "draft-05", "draft-06", "draft-07"].contains(where: { Self.occurs($0, in: uri) }) {
            self = .legacy
        } else if Self.occurs("2020-12", in: uri) {
            self = .modern
        } else if Self.occurs("2019-09", in: uri) {
            self = .unstated
        } else {
            return nil
        }
    }

    private static func occurs(_ part: String, in text: String) -> Bool {
        let text = Array(text.utf8)
        let part = Array(part.utf8)
        return text.indices.contains { text[$0...].starts(with: part) }
    }
}

/// One schema inside the document.
struct SchemaNode {
    let value: JSONValue
    /// From the document's root.
    let pointer: String
    /// What relative references are relative to, without fragment.
    let base: String
    let draft: SchemaDraft
    /// The place of the root that it belongs to.
    let root: Int
}

/// The documents that a constraint's schemas are parts of, and what their references refer to. No reference leads from one to another.
final class SchemaDocument {
    private(set) var schemas: [SchemaNode] = []
    /// By root: what is at a pointer.
    private var numbers: [[ByteKey: SchemaID]]
    private var indices: [ReferenceIndex?]
    private(set) var rootIDs: [SchemaID] = []

    /// - Throws: `ConstraintError` with the root's place as its function.
    init(roots: [JSONValue]) throws(ConstraintError) {
        numbers = Array(repeating: [:], count: roots.count)
        indices = Array(repeating: nil, count: roots.count)
        for (place, root) in roots.enumerated() {
            switch root {
            case .bool, .object: break
            default:
                throw ConstraintError(.invalid, "a schema is an object or a boolean, found \(root.kind)").with(
                    function: place)
            }
            rootIDs.append(add(root, pointer: "", base: "", draft: .unstated, root: place))
        }
    }

    subscript(id: SchemaID) -> SchemaNode { schemas[Int(id)] }

    private func add(_ value: JSONValue, pointer: String, base: String, draft: SchemaDraft, root: Int) -> SchemaID {
        if let known = numbers[root][ByteKey(text: pointer)] { return known }
        let id = SchemaID(schemas.count)
        let draft = value["$schema"]?.string.flatMap { SchemaDraft(uri: $0) } ?? draft
        let base = Self.base(of: value, outer: base, draft: draft)
        schemas.append(SchemaNode(value: value, pointer: pointer, base: base, draft: draft, root: root))
        numbers[root][ByteKey(text: pointer)] = id
        return id
    }

    /// The base that `value` sets for itself, or the outer one.
    static func base(of value: JSONValue, outer: String, draft: SchemaDraft) -> String {
        if draft == .legacy && value["$ref"]?.string != nil { return outer }
        guard let id = value["$id"]?.string ?? (draft == .modern ? nil : value["id"]?.string), !id.hasPrefix("#")
        else { return outer }
        return URIReference.resolve(id, against: outer).resource
    }

    /// The schema at `path` below `parent`.
    func child(of parent: SchemaID, _ value: JSONValue, _ path: String...) throws(ConstraintError) -> SchemaID {
        var pointer = self[parent].pointer
        for step in path { pointer += "/" + URIReference.escapedPointerToken(step) }
        switch value {
        case .bool, .object: break
        default:
            throw ConstraintError(
                .invalid, pointer: pointer, "a schema is an object or a boolean, found \(value.kind)")
        }
        let parent = self[parent]
        return add(value, pointer: pointer, base: parent.base, draft: parent.draft, root: parent.root)
    }

    /// The schema that `reference`, found in `source`, points to.
    func resolve(
        _ reference: String, keyword: String, from source: SchemaID
    ) throws(ConstraintError) -> SchemaID {
        let node = self[source]
        func failure(_ message: String) -> ConstraintError {
            ConstraintError(.unsupported, pointer: node.pointer, keyword: keyword, message)
        }
        let target = URIReference.resolve(reference, against: node.base)
        var place: ReferenceIndex.Place?
        let root = self[rootIDs[node.root]]
        lazy var references = self.references(of: node.root)
        if target.resource == root.base {
            place = ReferenceIndex.Place(value: root.value, pointer: "", base: root.base, draft: root.draft)
        } else {
            place = references.resources[ByteKey(text: target.resource)]
        }
        let fragment = target.fragment
        if !fragment.isEmpty && !fragment.hasPrefix("/") {
            place = references.anchors[ByteKey(text: target.resource + "#" + fragment)]
        }
        guard var place else { throw failure("'\(reference)' is not in this document") }
        if keyword == "$dynamicRef", references.dynamicAnchorCounts[ByteKey(text: fragment), default: 0] > 1 {
            throw failure("a dynamic reference with several possible targets is not supported")
        }
        if fragment.hasPrefix("/") {
            for step in fragment.dropFirst().split(separator: "/", omittingEmptySubsequences: false) {
                guard let next = place.step(URIReference.unescapedPointerToken(step)) else {
                    throw failure("'\(reference)' points to nothing")
                }
                place = next
            }
        }
        switch place.value {
        case .bool, .object: break
        default: throw failure("'\(reference)' points to \(place.value.kind), not to a schema")
        }
        return add(
            place.value, pointer: place.pointer, base: place.outerBase ?? place.base, draft: place.draft,
            root: node.root)
    }

    private func references(of root: Int) -> ReferenceIndex {
        if let index = indices[root] { return index }
        let made = ReferenceIndex(root: self[rootIDs[root]].value, base: "", draft: .unstated)
        indices[root] = made
        return made
    }
}
