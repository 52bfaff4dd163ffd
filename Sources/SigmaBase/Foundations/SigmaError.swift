/// What went wrong, where, and what to do about it.
///
/// Every failure that the engine reports has this type. `description` is one or two lines, ready to be shown to a person.
public struct SigmaError: Error, Sendable, CustomStringConvertible {
    /// The nature of a failure.
    public enum Kind: String, Sendable, CaseIterable {
        /// Arguments that make no sense together or alone.
        case usage
        /// A file that is damaged, or not what it claims to be, or of an unsupported kind.
        case damaged
        /// An input that does not exist or cannot be opened.
        case noInput
        /// Something needed is not available: a back end, memory, a feature.
        case unavailable
        /// Reading or writing failed.
        case inputOutput
        /// The user or the caller stopped the work.
        case interrupted
    }

    public var kind: Kind
    /// What is wrong: expected and found.
    public var message: String
    /// The file concerned.
    public var path: String?
    /// The tensor, key or other named thing inside the file.
    public var item: String?
    /// Byte offset inside the file.
    public var offset: UInt64?
    /// What the user can do.
    public var remedy: Remedy?

    public init(
        _ kind: Kind, _ message: String, path: String? = nil, item: String? = nil, offset: UInt64? = nil,
        remedy: Remedy? = nil
    ) {
        self.kind = kind
        self.message = message
        self.path = path
        self.item = item
        self.offset = offset
        self.remedy = remedy
    }

    /// The same error, of this file where it named none.
    package func inFile(_ path: String) -> SigmaError {
        var named = self
        named.path = self.path ?? path
        return named
    }

    /// `path: 'item' at byte N: message` and, on a second line, the remedy in the library's words.
    public var description: String { description(remedy: remedy?.description) }

    /// - Parameter remedy: the second line; nil: none.
    package func description(remedy: String?) -> String {
        var place: [String] = []
        if let item { place.append("'\(Self.printable(item))'") }
        if let offset { place.append("at byte \(offset)") }
        var line = path.map { ($0.isEmpty ? "''" : Self.printable($0)) + ": " } ?? ""
        if !place.isEmpty { line += place.joined(separator: " ") + ": " }
        line += Self.printable(message)
        if let remedy { line += "\n" + Self.printable(remedy) }
        return line
    }

    /// Names come from hostile files: control characters would write on the user's terminal, and line ends would forge other messages.
    package static func printable(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: { $0.value < 0x20 || (0x7f..<0xa0).contains($0.value) }) else {
            return text
        }
        var result = ""
        for scalar in text.unicodeScalars {
            if !(scalar.value < 0x20 || (0x7f..<0xa0).contains(scalar.value)) {
                result.unicodeScalars.append(scalar)
            } else {
                result += "\\u{\(String(scalar.value, radix: 16))}"
            }
        }
        return result
    }
}
