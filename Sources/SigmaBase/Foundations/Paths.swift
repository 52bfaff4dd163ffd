import SystemLibrary

/// - Throws: `SigmaError(.usage)` for a path that the system would cut at a NUL, and so take for another.
package func checkPath(_ path: String) throws {
    if path.utf8.contains(0) {
        throw SigmaError(.usage, "a path cannot have a NUL character in it", path: path)
    }
}

/// The folder of a path (`.` where it names none) and the name in it.
package func splitPath(_ path: String) -> (folder: String, name: String) {
    guard let slash = path.lastIndex(of: "/") else { return (".", path) }
    let folder = slash == path.startIndex ? "/" : String(path[..<slash])
    return (folder, String(path[path.index(after: slash)...]))
}

/// Whether there is something of this name, be it a link that leads nowhere.
package func isPresent(_ path: String) -> Bool {
    var status = stat()
    return lstat(path, &status) == 0
}

/// Where a symbolic link leads, from where the path is read; nil if the path is none.
package func linkTarget(_ path: String) -> String? {
    var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
    let count = readlink(path, &buffer, buffer.count)
    guard count > 0 else { return nil }
    let target = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return target.hasPrefix("/") ? target : splitPath(path).folder + "/" + target
}

/// Quotes a word of a shell command, so that the shell changes nothing in it.
package func shellQuoted(_ text: String) -> String {
    let isPlain = text.utf8.allSatisfy { byte in
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"), UInt8(ascii: "."),
            UInt8(ascii: "/"), UInt8(ascii: "+"), UInt8(ascii: ","), UInt8(ascii: "="), UInt8(ascii: ":"):
            true
        default: byte >= 0x80
        }
    }
    if isPlain, !text.hasPrefix("-") { return text }
    return "'" + text.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''") + "'"
}
