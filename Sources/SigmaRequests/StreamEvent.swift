import Sigma

/// A server-sent event.
package struct StreamEvent: Sendable, Equatable {
    /// Nil: readers tell events apart by their data.
    package var name: String?
    /// One line.
    package var data: String

    package init(name: String? = nil, data: String) {
        self.name = name
        self.data = data
    }

    /// As it is sent.
    package var text: String { (name.map { "event: \($0)\n" } ?? "") + "data: \(data)\n\n" }
}

extension JSONWriter {
    /// The JSON text of one object.
    static func object(_ body: (inout JSONWriter) -> Void) -> String {
        var json = JSONWriter()
        json.object(body)
        return json.text
    }
}
