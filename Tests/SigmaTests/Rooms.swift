import Foundation

/// Rooms of the sources, and which of them may use which: read from a Markdown table.
struct RoomTable {
    /// By room, in the table's order: the rooms that it may use.
    private(set) var allowed: [(room: String, uses: Set<String>)] = []

    /// - Parameter markdown: rows `| room | rooms that it may use |`, names between backquotes. A room of a module with several may be named by its
    ///   folder alone; "all rooms of `X`, `Y` above" names rooms of rows before.
    init(markdown: String) {
        let rows = markdown.split(separator: "\n").filter { $0.hasPrefix("| `") }
            .map { $0.split(separator: "|", omittingEmptySubsequences: false).map(String.init) }
        let rooms = rows.compactMap { $0.count == 4 ? Self.names($0[1]).first : nil }
        for cells in rows where cells.count == 4 {
            guard let room = Self.names(cells[1]).first else { continue }
            var uses: Set<String> = []
            for name in Self.names(cells[2]) {
                let inside = allowed.map(\.room).filter { $0.hasPrefix(name + "/") }
                if cells[2].contains("all rooms of"), !inside.isEmpty {
                    uses.formUnion(inside)
                } else {
                    uses.insert(rooms.contains(name) ? name : rooms.first { $0.hasSuffix("/" + name) } ?? name)
                }
            }
            allowed.append((room, uses))
        }
    }

    private static func names(_ cell: String) -> [String] {
        cell.split(separator: "`", omittingEmptySubsequences: false).enumerated().filter { $0.offset % 2 == 1 }
            .map { String($0.element) }
    }

    func uses(of room: String) -> Set<String>? { allowed.first { $0.room == room }?.uses }

    /// Rooms that can reach themselves.
    var circles: [String] {
        allowed.map(\.room).filter { start in
            var reached: Set<String> = []
            var waiting = Array(uses(of: start) ?? [])
            while let room = waiting.popLast() {
                if room == start { return true }
                if reached.insert(room).inserted { waiting += uses(of: room) ?? [] }
            }
            return false
        }
    }
}

/// Sources by room: what each defines at the top level, and which names its code contains.
struct RoomSources {
    struct File {
        let room: String
        let name: String
        let code: String
    }

    let files: [File]
    /// Where a name is defined, if one room alone does.
    private let owners: [String: String]
    /// By room, its types inside of types: one of another room with the same name is not meant.
    private let nested: [String: Set<String>]

    init(_ sources: [(room: String, name: String, text: String)]) {
        files = sources.map { File(room: $0.room, name: $0.name, code: Self.withoutCommentsAndStrings($0.text)) }
        var owners: [String: Set<String>] = [:]
        for file in files {
            for name in Self.definitions(file.code) { owners[name, default: []].insert(file.room) }
        }
        self.owners = owners.filter { $0.value.count == 1 }.mapValues { $0.first! }
        nested = Dictionary(grouping: files, by: \.room).mapValues { files in
            Set(files.flatMap { file in file.code.matches(of: Self.nestedType).map { String($0.1) } })
        }
    }

    /// Everything below `Sources`; a module with folders has a room for each.
    init(folder: URL) throws {
        var sources: [(room: String, name: String, text: String)] = []
        let files = FileManager.default.enumerator(at: folder, includingPropertiesForKeys: nil)!
        for case let file as URL in files where file.pathExtension == "swift" {
            let path = file.path.dropFirst(folder.path.count + 1).split(separator: "/").map(String.init)
            let hasRooms = ["Sigma", "SigmaBase", "SigmaStudies"].contains(path[0])
            guard !hasRooms || path.count > 2 else { continue }
            sources.append(
                (
                    hasRooms ? path[0] + "/" + path[1] : path[0], path.last!,
                    try String(contentsOf: file, encoding: .utf8)
                ))
        }
        self.init(sources)
    }

    /// Uses that the table does not allow, as `room/file: name of other room`.
    func violations(_ table: RoomTable) -> [String] {
        files.flatMap { file -> [String] in
            guard let allowed = table.uses(of: file.room) else { return [] }
            return Set(Self.words(file.code).map(String.init)).compactMap { word in
                guard let owner = owners[word], owner != file.room, isVisible(owner, from: file.room),
                    !allowed.contains(owner), nested[file.room]?.contains(word) != true
                else { return nil }
                return "\(file.room)/\(file.name): \(word) of \(owner)"
            }
        }.sorted()
    }

    /// Casts to a back end outside of it, as `room/file: cast`.
    var casts: [String] {
        files.filter { $0.room != "Sigma/CPU" && $0.room != "Sigma/CUDA" }.flatMap { file in
            file.code.matches(of: /as[?!]\s+(CPU|CUDA)Backend/).map { "\(file.room)/\(file.name): \($0.0)" }
        }
    }

    /// A module sees those below it alone: another's type of the same name is not meant.
    private func isVisible(_ owner: String, from room: String) -> Bool {
        let order = [
            "SystemLibrary", "SigmaBase", "SigmaGrammar", "Sigma", "SigmaStudies", "SigmaConversion", "SigmaRequests",
            "SigmaTerminal", "SigmaCommand",
        ]
        func level(_ room: String) -> Int { order.firstIndex(of: String(room.split(separator: "/")[0])) ?? order.count }
        return level(owner) <= level(room)
    }

    // MARK: - Text

    private static var nestedType: Regex<(Substring, Substring)> {
        /\n +(?:[a-z]+ )*(?:struct|class|enum|typealias) ([A-Z]\w*)/
    }

    static func definitions(_ code: String) -> [String] {
        code.split(separator: "\n").compactMap { line in
            guard let first = line.first, !first.isWhitespace, !line.hasPrefix("private"),
                !line.hasPrefix("fileprivate")
            else { return nil }
            let pattern =
                /^(?:(?:public|package|internal|open|final|indirect|nonisolated|@\w+(?:\([^)]*\))?)\s+)*(?:struct|class|enum|protocol|actor|typealias|func|let|var)\s+([A-Za-z_]\w*)/
            return line.firstMatch(of: pattern).map { String($0.1) }
        }
    }

    static func words(_ code: String) -> [Substring] {
        code.split { !($0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_")) }
    }

    static func withoutCommentsAndStrings(_ text: String) -> String {
        var code = ""
        var rest = text[...]
        while let character = rest.first {
            if rest.hasPrefix("//") {
                rest = rest.drop { $0 != "\n" }
            } else if rest.hasPrefix("/*") {
                rest = rest.range(of: "*/").map { rest[$0.upperBound...] } ?? ""
            } else if rest.hasPrefix("\"\"\"") {
                rest = rest.dropFirst(3)
                rest = rest.range(of: "\"\"\"").map { rest[$0.upperBound...] } ?? ""
            } else if character == "\"" {
                rest = rest.dropFirst()
                while let inside = rest.first, inside != "\"", inside != "\n" {
                    // What is interpolated counts as text, too.
                    rest = rest.dropFirst(inside == "\\" ? 2 : 1)
                }
                rest = rest.dropFirst()
                code += "\"\""
            } else {
                code.append(character)
                rest = rest.dropFirst()
            }
        }
        return code
    }
}
